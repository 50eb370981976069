"""Frozen values that every floor shares: what should be, what is, what happened. No I/O."""
