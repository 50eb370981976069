"""Open-loop traffic: a client that keeps its schedule whatever happens, and counts every request that is lost."""

from tests.load.report import Report, Sample
from tests.load.run import Load

__all__ = ["Load", "Report", "Sample"]
