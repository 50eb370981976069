"""What the monitor does by itself: decided (policies, limits, wants), and done (act, withdraw, rouse)."""
