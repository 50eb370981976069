"""k4t: a deploy box for containers. `k4t.cli` is the way in; docs/life-of-an-apply.md is the way around."""

__version__ = "0.1.0"
