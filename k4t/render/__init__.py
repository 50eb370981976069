"""What people and programs see. Results go to standard output; progress, notes and prompts to standard error."""
