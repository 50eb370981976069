"""How a check asks everything: one command a host (probe, answer), all at once (gather), and who answers (reach)."""
