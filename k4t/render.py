"""What people see: plans, tables, progress, JSON."""
