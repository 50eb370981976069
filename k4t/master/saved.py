"""A plan in a file: what was decided, about which tree and which serial, to be carried out later, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k4t.errors import Unsafe, Usage
from k4t.master.planning import report
from k4t.master.planning.plan import Create, Fetch, Plan, RunJob
from k4t.tree.edit import write_file

FORMAT = 1
WHAT = "k4t plan"
MAX_BYTES = 64 * 1024 * 1024
JUDGED_ANEW = ("warning: ", "unsafe ")
"""Lines of a plan's text that --allow, not the world, makes come and go."""


@dataclass(frozen=True, slots=True)
class Saved:
    """`text` is the plan as golden tests compare it; `about` what each step makes: a spec's hash, an image's digest."""

    cluster: str
    tree: str
    serial: int
    apps: tuple[str, ...]
    allow: frozenset[str]
    pull: bool
    text: str
    about: Mapping[str, str]
    retry: bool = False
    rebalance: bool = False

    @property
    def empty(self) -> bool:
        return self.text.startswith("nothing to do")


def save(
    path: Path,
    plan: Plan,
    cluster_id: str,
    *,
    apps: tuple[str, ...],
    allow: frozenset[str],
    pull: bool,
    retry: bool = False,
    rebalance: bool = False,
) -> None:
    """Write it. Raises K4tError naming the path."""
    content = {
        "format": FORMAT, "what": WHAT, "cluster": cluster_id, "tree": plan.tree, "serial": plan.serial,
        "apps": list(apps), "allow": sorted(allow), "pull": pull, "retry": retry, "rebalance": rebalance,
        "plan": text_of(plan), "about": about(plan),
    }  # fmt: skip
    write_file(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def load(path: Path) -> Saved:
    """Raises Usage when it is no plan file, or one of a newer k4t."""
    try:
        return _saved(json.loads(path.read_bytes()[:MAX_BYTES]), path)
    except OSError as error:
        raise Usage(f"can't read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Usage(f"{path} is no plan file", "k4t plan --save FILE writes one") from error


def _saved(found: Mapping[str, Any], path: Path) -> Saved:
    if found["what"] != WHAT:
        raise ValueError(found["what"])
    if found["format"] > FORMAT:
        raise Usage(f"{path} is a plan of format {found['format']}, this k4t reads up to {FORMAT}", "update k4t")
    return Saved(
        cluster=str(found["cluster"]), tree=str(found["tree"]), serial=int(found["serial"]),
        apps=tuple(map(str, found["apps"])), allow=frozenset(map(str, found["allow"])), pull=bool(found["pull"]),
        text=str(found["plan"]), about={str(key): str(value) for key, value in found["about"].items()},
        retry=bool(found.get("retry")), rebalance=bool(found.get("rebalance")),
    )  # fmt: skip


def need_same_tree(saved: Saved, cluster_id: str, tree: str, path: Path) -> None:
    """Raises Unsafe (exit 4) when the file is about another tree."""
    if saved.cluster != cluster_id:
        raise Unsafe(f"{path} is a plan for cluster {saved.cluster}, this tree is cluster {cluster_id}")
    if saved.tree != tree:
        raise Unsafe(
            f"the tree has moved on since {path} was saved: it was {saved.tree[:12]}, now it is {tree[:12]}",
            "make and look at a new plan",
        )


def need_same_plan(saved: Saved, plan: Plan, path: Path) -> None:
    """Raises Unsafe (exit 4) when the world has moved on, so that the plan would be another one now."""
    if plan.serial != saved.serial and not plan.empty:
        why = f"serial {plan.serial - 1} has been applied since, it was planned for {saved.serial - 1}"
    elif (now := text_of(plan)) != saved.text:
        why = _difference(saved.text, now)
    elif (made := about(plan)) != saved.about:
        step = next(key for key in (*saved.about, *made) if saved.about.get(key) != made.get(key))
        why = f"{step} would make something else now: {made.get(step)}, not {saved.about.get(step)}"
    else:
        return
    raise Unsafe(f"the world has moved on since {path} was saved: {why}", "make and look at a new plan")


def text_of(plan: Plan) -> str:
    lines = report.as_text(plan).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(JUDGED_ANEW))


def about(plan: Plan) -> dict[str, str]:
    """What the text doesn't say: which spec, which digest."""
    found = {}
    for step in plan.steps:
        if isinstance(step.work, Create):
            found[step.id] = f"{step.work.spec} {step.work.image.digest}"
        elif isinstance(step.work, RunJob):
            found[step.id] = f"{step.work.key} {step.work.image.digest}"
        elif isinstance(step.work, Fetch):
            found[step.id] = step.work.image.digest
    return found


def _difference(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    gone = next((line for line in old if line not in new), "")
    come = next((line for line in new if line not in old), "")
    return "; ".join(word for word in (f"gone: {gone}" if gone else "", f"new: {come}" if come else "") if word) or (
        "the order of steps has changed"
    )
