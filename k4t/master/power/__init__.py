"""The machine that k4t runs on may sleep: it says so, goes off, is woken, and does what was queued meanwhile."""
