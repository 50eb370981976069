"""The deploy box itself. `deploy` tells the story of an apply from top to bottom."""
