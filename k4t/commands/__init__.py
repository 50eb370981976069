"""Commands in groups, each a few lines: hosts, apps … `k4t.cli` puts them together."""
