"""The story of one round: which apps → ask → measure → decide → what is to be asked of the master."""

from __future__ import annotations

from k4t.master.fleet import Fleet
from k4t.model.app import App
from k4t.monitor.acting.action import Action
from k4t.monitor.check import Looked
from k4t.monitor.facts import Facts
from k4t.monitor.scaling.measure import Answers, measured
from k4t.monitor.scaling.memory import NONE, NOTHING, AppMemory, Memory
from k4t.monitor.scaling.sample import ask
from k4t.monitor.scaling.track import decide


def round(fleet: Fleet, looked: Looked, memory: Memory, now_s: float) -> tuple[Memory, tuple[Action, ...]]:
    """The memory for the next round, and actions of verb “scale”. Without an app with `<scale>` nobody is asked
    anything. Bounded in time; raises nothing that a host or a command could raise."""
    apps = _apps(looked)
    if not apps:
        return NONE, ()
    answers = ask(fleet, looked.facts, apps)
    return decided(looked, apps, answers, memory, now_s)


def decided(
    looked: Looked, apps: tuple[App, ...], answers: Answers, memory: Memory, now_s: float
) -> tuple[Memory, tuple[Action, ...]]:
    """Pure: the round after everybody has answered."""
    kept: dict[str, AppMemory] = {}
    actions = []
    for app in apps:
        before = memory.apps.get(app.name)
        taken = measured(
            app, looked.tree, looked.facts, answers, before.seen if before else NOTHING, at_s=now_s
        )  # fmt: skip
        if app.scale is None or _is_held(app, looked.facts):
            continue  # what is asked for would not come: its windows begin when it is mended
        found = decide(app.scale, taken.sample, before.track if before else None)
        kept[app.name] = AppMemory(found.track, taken.seen)
        if found.replicas is not None:
            actions.append(Action("scale", "scale", app.name, found.cause, replicas=found.replicas))
    return Memory(kept), tuple(actions)


def words(memory: Memory, app: str) -> str:
    """Why an app has the size that it has, as the last round saw it; "" when it was not looked at."""
    found = memory.apps.get(app)
    return found.track.said if found else ""


def _apps(looked: Looked) -> tuple[App, ...]:
    """Those whose size is known and may change."""
    if not looked.has_tree:
        return ()
    apps = looked.tree.apps.values()
    return tuple(app for app in apps if app.scale is not None and not app.stopped and app.name in looked.facts.desired)


def _is_held(app: App, facts: Facts) -> bool:
    return facts.head is not None and app.name in facts.head.held
