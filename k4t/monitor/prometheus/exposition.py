"""Prometheus' text format: families and samples → text. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. No timestamps: the node exporter's
textfile collector refuses them. Every family here is a gauge; what only carries words is one that is always 1 (_info).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from k4t.model.value import value

MAX_SERIES = 5000
"""Of one family. Names come from hosts, and none of them may fill Prometheus."""
MAX_LABEL = 200


@value
class Sample:
    """`labels` in the order in which they are written; an empty one is left out, as Prometheus has it. `measured` None:
    unknown, and so absent."""

    name: str
    labels: Mapping[str, str]
    measured: float | None


def render(families: Mapping[str, str], samples: Iterable[Sample]) -> tuple[str, int]:
    """The text, and how many series were too many for it. `families`: what each is about, by its name, in the order in
    which they are written. A series is written once. Raises KeyError for a sample of no known family."""
    series: dict[str, dict[str, str]] = {name: {} for name in families}
    dropped = 0
    for one in samples:
        rows, labels = series[one.name], _labels(one.labels)
        if one.measured is None or not math.isfinite(one.measured) or labels in rows:
            continue
        if len(rows) < MAX_SERIES:
            rows[labels] = number(one.measured)
        else:
            dropped += 1
    lines: list[str] = []
    for name, rows in series.items():
        if rows:
            lines += [f"# HELP {name} {_help(families[name])}", f"# TYPE {name} gauge"]
            lines += [f"{name}{labels} {measured}" for labels, measured in rows.items()]
    return "".join(f"{line}\n" for line in lines), dropped


def number(measured: float) -> str:
    """As short as it can be read back; a whole number without a point."""
    if isinstance(measured, int) or (measured.is_integer() and abs(measured) < 1e15):
        return str(int(measured))
    return repr(measured)


def _labels(labels: Mapping[str, str]) -> str:
    shown = [f'{name}="{escaped(text)}"' for name, text in labels.items() if text]
    return f"{{{','.join(shown)}}}" if shown else ""


def escaped(text: str) -> str:
    """Of a label's value. What is no character at all becomes a question mark."""
    whole = text[:MAX_LABEL].encode("utf-8", "replace").decode("utf-8")
    return whole.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
