"""A plan as a good diff: grouped by app and node, the cause on each line, counts at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from k4t.master.planning.plan import DropJob, Fetch, Pause, Plan, Publish, Resize, RunJob, Slot, Step
from k4t.render.console import Console, plural

SIGNS = {"create": "+", "replace": "~", "remove": "-", "stop": "-", "start": ">"}
SIGNS |= {"resize": "≈", "refresh": "≈", "await": "?"}
STYLES = {"+": "green", "~": "yellow", "-": "red", ">": "cyan", "≈": "yellow", "?": "yellow"}
VERBS = {
    "create": "create",
    "replace": "replace",
    "remove": "remove",
    "stop": "stop",
    "start": "start",
    "resize": "resize",
    "refresh": "refresh",
    "await": "await",
}
COUNTED = ("create", "replace", "start", "resize", "refresh", "stop", "remove", "await")
MAX_TROUBLES = 10


@dataclass(slots=True)
class _Change:
    """All steps of one replica, as one line: what happens to it, where, why."""

    app: str
    replica: str
    steps: list[Step] = field(default_factory=list)

    @property
    def kind(self) -> str:
        actions = {step.action for step in self.steps}
        for kind, needs in (
            ("replace", {"create", "remove"}),
            ("replace", {"create", "stop"}),
            ("create", {"create"}),
            ("start", {"start"}),
            ("remove", {"remove"}),
            ("stop", {"stop"}),
            ("resize", {"resize"}),
            ("refresh", {"refresh"}),
            ("await", {"await"}),
        ):
            if needs <= actions:
                return kind
        return ""

    @property
    def main(self) -> Step:
        """The step that tells the cause best."""
        order = ("create", "start", "resize", "refresh", "remove", "stop", "await")
        ranked = [step for step in self.steps if step.action in order]
        return min(ranked, key=lambda step: order.index(step.action))

    @property
    def nodes(self) -> str:
        old = [step.node for step in self.steps if step.action in ("stop", "remove")]
        new = [step.node for step in self.steps if step.action in ("create", "start", "resize", "refresh", "await")]
        if old and new and old[0] != new[0]:
            return f"{old[0]} → {new[0]}"
        return (new or old)[0]


def lines(plan: Plan, console: Console, name: str) -> Iterator[str]:
    """The whole plan. `name` is the cluster's."""
    if plan.empty and not (plan.unsafe or plan.unschedulable or plan.not_done or plan.refused):
        yield "Nothing to do: what runs is what the tree says."
    changes = _changes(plan)
    for app in sorted({step.app for step in plan.steps if step.app}):
        size = f"  {plan.sizes[app]}" if app in plan.sizes else ""
        yield console.style(app, "bold") + size
        yield from _app_lines(plan, app, changes, console)
        yield ""
    yield from _heals(plan, console)
    yield from _notes(plan, console)
    if changes or plan.steps:
        yield f"Plan for {name}: {_counts(plan, changes)}."


def counts(plan: Plan) -> str:
    return _counts(plan, _changes(plan))


def _changes(plan: Plan) -> list[_Change]:
    found: dict[tuple[str, str], _Change] = {}
    for step in plan.steps:
        if step.replica and step.action in VERBS:
            found.setdefault((step.app, step.replica), _Change(step.app, step.replica)).steps.append(step)
    published = {step.app for step in plan.steps if isinstance(step.work, Publish)}
    return [change for change in found.values() if change.kind != "await" or change.app not in published]


def _app_lines(plan: Plan, app: str, changes: list[_Change], console: Console) -> Iterator[str]:
    mine = sorted((change for change in changes if change.app == app), key=lambda one: (one.nodes, _order(one.replica)))
    node = None
    for change in mine:
        if change.nodes != node:
            node = change.nodes
            yield f"  {node}"
        sign = SIGNS[change.kind]
        text = f"    {sign} {VERBS[change.kind]:<8} {app}.{change.replica}"
        yield f"{console.style(text, STYLES[sign])}  {console.style(plan.cause(change.main), 'dim')}"
    for step in plan.steps:
        if step.app == app and isinstance(step.work, Publish):
            yield f"  {console.style('* ' + _publication(step.work), 'cyan')}  {console.style(plan.cause(step), 'dim')}"
        elif step.app == app and isinstance(step.work, (RunJob, DropJob)):
            yield f"  {console.style('* ' + _job(step), 'cyan')}  {console.style(plan.cause(step), 'dim')}"


def _job(step: Step) -> str:
    if isinstance(step.work, DropJob):
        return f"take the timer of job {step.work.run.job} from {step.node}"
    if isinstance(step.work, RunJob) and step.work.schedule:
        return f"set the timer of job {step.work.job} on {step.node}: {step.work.schedule} {step.work.timezone}"
    return f"run job {step.work.job} on {step.node}" if isinstance(step.work, RunJob) else ""


def _heals(plan: Plan, console: Console) -> Iterator[str]:
    """Publications of no app: a group that doesn't hold or serve what it was told, and how it differs."""
    heals = [(step, step.work) for step in plan.steps if not step.app and isinstance(step.work, Publish)]
    for step, work in heals:
        yield console.style(f"~ put right {_group(work)}", "yellow")
        troubles = step.cause.split("; ")
        yield from (f"    {trouble}" for trouble in troubles[:MAX_TROUBLES])
        if len(troubles) > MAX_TROUBLES:
            yield f"    and {len(troubles) - MAX_TROUBLES} more"
    if heals:
        yield ""


def _group(work: Publish) -> str:
    return f"{'DNS' if work.kind == 'dns' else work.kind} group {work.group}"


def _publication(work: Publish) -> str:
    parts = [f"{sign}{_slot(slot)}" for sign, slots in (("+", work.add), ("-", work.remove)) for slot in slots]
    what = " ".join(parts[:6]) + (f" and {len(parts) - 6} more" if len(parts) > 6 else "")
    return f"publish in {_group(work)}: {what or 'routes and records'}"


def _slot(slot: Slot) -> str:
    return f"{slot.app}.{slot.replica}@{slot.node}"


def _notes(plan: Plan, console: Console) -> Iterator[str]:
    for item in plan.unschedulable:
        yield console.style(f"! {item.app}.{item.replica} fits nowhere: {'; '.join(item.reasons)}", "red")
    for sentence in (*plan.not_done, *plan.refused):
        yield console.style(f"! {sentence}", "red")
    for change in plan.unsafe:
        yield console.style(f"! unsafe: {change.detail}  (--allow {change.allow})", "red")
    for warning in plan.warnings:
        yield console.style(f"! {warning}", "yellow")


def _counts(plan: Plan, changes: list[_Change]) -> str:
    kinds = [change.kind for change in changes]
    parts = [f"{kinds.count(kind)} to {kind}" for kind in COUNTED]
    parts = [part for part in parts if not part.startswith("0 ")]
    publications = sum(isinstance(step.work, Publish) for step in plan.steps)
    if publications:
        parts.append(plural(publications, "publication"))
    return ", ".join(parts) or plural(len(plan.steps), "step")


def _order(replica: str) -> tuple[int, str]:
    return (int(replica), "") if replica.isdigit() else (-1, replica)


def describe(step: Step) -> str:
    """A step in a few words, for progress."""
    work = step.work
    if isinstance(work, Publish):
        return _publication(work) if step.app else f"put right {_group(work)}"
    if isinstance(work, Fetch):
        return f"{'send' if work.archive else 'pull'} {work.image.reference}"
    if isinstance(work, Pause):
        return f"{step.app}: {step.action} {work.duration_s:g} s"
    if isinstance(work, Resize):
        return f"resize {work.name}"
    if isinstance(work, (RunJob, DropJob)):
        return f"{step.app}: {_job(step)}"
    return f"{step.action} {work.name}"


def placed(step: Step) -> str:
    """The same with its node in front."""
    return f"{step.node}: {describe(step)}" if step.node else describe(step)
