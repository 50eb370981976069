"""Figures as a table: what, how long beside what, the ratio, the target and whether it is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.measure import Cost


@dataclass(frozen=True, slots=True)
class Row:
    """`figure` is compared with `most`; `target` says it in words."""

    name: str
    cells: tuple[str, str, str, str, str]
    figure: float
    most: float
    target: str

    @property
    def met(self) -> bool:
        return self.figure <= self.most


HEAD = ("", "wall s", "limit s", "ratio (min-max)", "CPU s", "MB", "target", "met")


def beside(name: str, ours: Sequence[Cost], theirs: Sequence[Cost], most: float) -> Row:
    """Wall time beside the limit of the same round; the ratio is the median of the rounds' ratios."""
    ratios = [mine.wall_s / its.wall_s for mine, its in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    cells = (
        _spread([cost.wall_s for cost in ours]),
        _spread([cost.wall_s for cost in theirs]),
        f"{ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        f"{median(cost.cpu_s for cost in ours):.2f}",
        f"{max(cost.rss_bytes for cost in ours) / 1e6:.0f}",
    )
    return Row(name, cells, ratio, most, f"<= {most:g} x")


def within(name: str, ours: Sequence[Cost], theirs: Sequence[Cost], most_s: float) -> Row:
    """Wall time as it is, with something to look at beside it."""
    wall_s = median(cost.wall_s for cost in ours)
    cells = (
        _spread([cost.wall_s for cost in ours]),
        _spread([cost.wall_s for cost in theirs]) if theirs else "",
        "",
        f"{median(cost.cpu_s for cost in ours):.2f}",
        f"{max(cost.rss_bytes for cost in ours) / 1e6:.0f}",
    )
    return Row(name, cells, wall_s, most_s, f"<= {most_s:g} s")


def more_than(name: str, ours: Sequence[Cost], theirs: Sequence[Cost], most_s: float) -> Row:
    """How much longer than something else."""
    apart_s = median(cost.wall_s for cost in ours) - median(cost.wall_s for cost in theirs)
    row = within(name, ours, theirs, most_s)
    cells = (row.cells[0], row.cells[1], f"+{apart_s:.3f} s", *row.cells[3:])
    return Row(name, cells, apart_s, most_s, f"<= +{most_s:g} s")


def plain(name: str, seconds: Sequence[float], most_s: float) -> Row:
    return Row(name, (_spread(seconds), "", "", "", ""), median(seconds), most_s, f"<= {most_s:g} s")


def memory(costs: Sequence[Cost], most_bytes: float) -> Row:
    peak = max(cost.rss_bytes for cost in costs)
    return Row("peak memory", ("", "", "", "", f"{peak / 1e6:.0f}"), peak, most_bytes, f"<= {most_bytes / 1e6:g} MB")


def table(rows: Sequence[Row]) -> str:
    """GitHub's Markdown, which a terminal shows well enough."""
    lines = [HEAD, *((row.name, *row.cells, row.target, _verdict(row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    text.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in text)


def _verdict(row: Row) -> str:
    """Nothing where nothing was promised."""
    return "" if row.target == "-" else "yes" if row.met else "NO"


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
