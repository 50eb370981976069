"""A plan for programs (design.md's JSON) and as compact text, one step a line: the form that golden tests compare."""

from __future__ import annotations

from collections.abc import Iterable

from k4t.master.planning.plan import Create, Fetch, Pause, Plan, Publish, Slot, Step

VERSION = 1


def to_json(plan: Plan) -> dict[str, object]:
    return {
        "version": VERSION,
        "cluster": plan.cluster,
        "tree": plan.tree,
        "serial": plan.serial,
        "changes": len(plan.steps),
        "steps": [_step(plan, step) for step in plan.steps],
        "publications": publications(plan),
        "unsafe": [{"kind": c.kind, "name": c.name, "detail": c.detail, "allow": c.allow} for c in plan.unsafe],
        "unschedulable": [
            {"app": one.app, "replica": _number(one.replica), "reasons": list(one.reasons)}
            for one in plan.unschedulable
        ],
        "warnings": list(plan.warnings),
        "not_done": list(plan.not_done),
        "refused": list(plan.refused),
        "held": dict(plan.held),
        "paused": dict(plan.paused),
        "sizes": dict(plan.sizes),
    }


def publications(plan: Plan) -> list[dict[str, object]]:
    """Merged wave by wave: what several apps do in their first, second … publication to one group stands together."""
    merged: dict[tuple[int, str, str], tuple[list[Slot], list[Slot]]] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for step in plan.steps:
        if not isinstance(step.work, Publish):
            continue
        work = step.work
        wave = seen[work.kind, work.group, step.app] = seen.get((work.kind, work.group, step.app), 0) + 1
        adds, removes = merged.setdefault((wave, work.kind, work.group), ([], []))
        adds += work.add
        removes += work.remove
    return [
        {"group": group, "kind": kind, "add": _slots(adds), "remove": _slots(removes)}
        for (_, kind, group), (adds, removes) in sorted(merged.items())
    ]


def as_text(plan: Plan) -> str:
    """Every step with its cause and what it follows; then what is unsafe, can't be placed, is not done."""
    lines = [f"serial {plan.serial}" if plan.steps else "nothing to do"]
    lines += [f"size {app}: {sentence}" for app, sentence in plan.sizes.items()]
    lines += [_line(step) for step in plan.steps]
    lines += [f"unsafe {change.allow}: {change.detail}" for change in plan.unsafe]
    lines += [f"unschedulable {one.app}.{one.replica}: {'; '.join(one.reasons)}" for one in plan.unschedulable]
    lines += [f"not done: {sentence}" for sentence in plan.not_done]
    lines += [f"refused: {sentence}" for sentence in plan.refused]
    lines += [f"warning: {sentence}" for sentence in plan.warnings]
    return "\n".join(lines) + "\n"


def _line(step: Step) -> str:
    parts = [step.id]
    work = step.work
    if isinstance(work, Publish):
        parts += [f"+{slot.label}" for slot in work.add]
        parts += [f"-{slot.label}" for slot in work.remove]
        parts += [f"={app}" for app in work.settle]
        parts += [f"={app} as before" for app in work.restore]
    elif isinstance(work, Pause):
        parts.append(f"{work.duration_s:g}s")
    elif isinstance(work, Create) and (work.ports or work.address):
        parts += [f"{name}={number}" for name, number in sorted(work.ports.items())]
        parts += [work.address] if work.address else []
    elif isinstance(work, Fetch) and work.archive:
        parts.append(work.archive)
    parts.append(f"({step.cause})")
    parts += ["after " + " ".join(step.after)] if step.after else []
    parts += ["awaits " + " ".join(step.awaits)] if step.awaits else []
    return " ".join(parts)


def _step(plan: Plan, step: Step) -> dict[str, object]:
    return {
        "id": step.id,
        "action": step.action,
        "node": step.node,
        "app": step.app,
        "replica": _number(step.replica),
        "cause": plan.cause(step),
        "after": [*step.after, *step.awaits],
    }


def _slots(slots: Iterable[Slot]) -> list[dict[str, object]]:
    return [
        {"app": slot.app, "replica": _number(slot.replica), "node": slot.node, "generation": slot.generation}
        for slot in slots
    ]


def _number(replica: str) -> int | str:
    return int(replica) if replica.isdigit() else replica
