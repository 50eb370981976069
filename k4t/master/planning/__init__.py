"""Pure decisions: (desired, observed, now) to a plan. Nothing here does I/O or reads a clock."""
