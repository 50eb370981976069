"""Puts the parts together for `cli`: which driver, which transport."""
