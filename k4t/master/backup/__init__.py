"""Copies of the tree: made, kept on nodes, read, and put back."""
