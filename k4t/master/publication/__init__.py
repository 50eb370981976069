"""Keeps the members of a group in step: one atomic change to every participant."""
