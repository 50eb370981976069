"""Jobs on one node: a container that runs to its end, and a timer that starts it while the master sleeps.

A job has one container, whose name is held as long as it exists: so there are never two of a job at once on a node,
whoever starts it. It stays when it has ended: how it ended, for what it ran and what it said are read from it.
A timer is that container, made beforehand, and a script that the host's own systemd or cron runs: no secret, image or
argument stands in the script, only the container's name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import field

from k4t.command import quote
from k4t.errors import EngineRefused, ImageNotFound, Interrupted, K4tError, StepError
from k4t.model.app import App
from k4t.model.state import Container, JobRun
from k4t.model.value import value
from k4t.node import cron, joblist, logs
from k4t.node.body import Given, body
from k4t.node.docker import Engine
from k4t.node.files import ROOT, discard, files_needed, make_volumes, put_files
from k4t.node.lifecycle import name_taken
from k4t.node.listing import name_of
from k4t.node.networks import explained
from k4t.remote.transport import Transport

LOOK_EVERY_S = 1.0
FIRST_LOOK_S = 0.1
TAIL_LINES = 20
MAX_LINES_SHOWN = 1000
LAST_WORDS_S = 3.0
STOP_GRACE_S = 10.0
BUSY = 75
"""The script's exit status when the job runs already (sysexits' EX_TEMPFAIL)."""
OVERDUE = 124
"""As `timeout` has it."""
SYSTEMD = "/etc/systemd/system"
CRON = "/etc/cron.d"
ZONES = "/usr/share/zoneinfo"

Say = Callable[[str], None]


@value
class Order:
    """A job to run, or to put on a node. `app`: the app as the job runs it; `image`: what the Engine finds it by.
    `secrets`, `contents`, `digests`: as create.Order has them."""

    cluster_id: str
    name: str
    app: App
    job: str
    key: str
    image: str
    address: str
    timeout_s: float
    schedule: str = ""
    timezone: str = ""
    done: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"job {self.job} of {self.app.name}"


def quiet(_line: str) -> None:
    """A Say that tells nobody."""


def find(engine: Engine, order: Order) -> JobRun | None:
    """Its container. Raises NameTaken when the name is held by one that is not ours."""
    for entry in engine.list_containers():
        if name_of(entry) == order.name:
            ours = joblist.runs(engine.host, [entry], order.cluster_id)
            if not ours or (ours[0].app, ours[0].job) != (order.app.name, order.job):
                raise name_taken(engine.host, order.name, entry)
            return ours[0]
    return None


def run(engine: Engine, order: Order, say: Say, stopping: threading.Event) -> str:
    """Run it once for its key, to its end; a word about it. One that is under way is waited for, and counts when it
    runs for the same key.

    Raises StepError (how it ended, and the last it said; or that it took too long and was stopped) and Interrupted (it
    runs on).
    """
    there = find(engine, order)
    if there is not None and there.running:
        say("runs already: waited for")
        status = follow(engine, order, there.id, say, stopping)
        there = find(engine, order)
        if there is not None and there.key == order.key:
            return judged(engine, order, there.id, status)
    if there is not None and order.key in there.succeeded:
        return "was done before"
    made = begin(engine, order, there)
    return judged(engine, order, made, follow(engine, order, made, say, stopping))


def begin(engine: Engine, order: Order, there: JobRun | None) -> str:
    """Make it anew and start it; its id. `there`: what the name is held by, which does not run. What an earlier run is
    known to have done stays known."""
    made = make(engine, order, there)
    _start(engine, made)
    return made


def start_again(engine: Engine, there: JobRun) -> str:
    """Start a timer's container now, as the timer would; when its run before that ended, for `follow`."""
    last = str((((engine.inspect(there.id) or {}).get("State")) or {}).get("FinishedAt") or "")
    _start(engine, there.id)
    return "" if last.startswith("0001") else last


def make(engine: Engine, order: Order, there: JobRun | None) -> str:
    """The container, not started; its id. Raises ImageNotFound, and what the Engine raises."""
    done = (*order.done, *(there.succeeded if there is not None else ()))
    if there is not None:
        _remove(engine, there.id)
    marks = joblist.build(
        cluster_id=order.cluster_id, app=order.app.name, job=order.job, key=order.key,
        schedule=f"{order.schedule} {order.timezone}" if order.schedule else "", done=done,
        secrets=order.digests,
    )  # fmt: skip
    make_volumes(engine, order.cluster_id, order.app)
    given = Given(marks, address=order.address, secrets=order.secrets, files=_put(engine, order))
    try:
        return engine.create(order.name, body(order.app, order.image, given))
    except EngineRefused as error:
        if error.status == 404 and "no such image" in error.message.lower():
            raise ImageNotFound(
                f"image {order.app.image.reference} is not on the node", "apply again", host=engine.host
            ) from error
        raise explained(error) from error


def follow(engine: Engine, order: Order, id: str, say: Say, stopping: threading.Event, *, since: str = "") -> int:
    """Until it ends; its exit status. What it says (`since`, RFC 3339 UTC) is said.

    Raises StepError when it took too long and was stopped, Interrupted when `stopping` is set: it runs on then.
    """
    listener = threading.Thread(target=_listen, args=(engine, id, say, since), name=order.name, daemon=True)
    listener.start()
    deadline = time.monotonic() + order.timeout_s
    look_s = FIRST_LOOK_S
    while (status := _ended(engine, order, id)) is None:
        if time.monotonic() >= deadline:
            engine.stop(id, order.app.stop.grace_s)
            listener.join(LAST_WORDS_S)
            raise StepError(
                f"{order.title} took longer than {order.timeout_s:g} s and was stopped; give it a longer timeout, or "
                f"see what it waits for{_said(engine, id)}",
                host=engine.host,
            )
        if stopping.wait(min(look_s, max(0.0, deadline - time.monotonic()))):
            raise Interrupted(f"{order.title} runs on, on {engine.host}; the next run waits for it")
        look_s = min(LOOK_EVERY_S, look_s * 1.5)
    listener.join(LAST_WORDS_S)
    return status


def times(engine: Engine, id: str) -> tuple[str, str]:
    """When its last run began and ended, RFC 3339 UTC; "" where it has not."""
    state = (engine.inspect(id) or {}).get("State") or {}
    ended = "" if state.get("Running") else _moment(state.get("FinishedAt"))
    return _moment(state.get("StartedAt")), ended


def _moment(at: object) -> str:
    """Docker's idea of never is the year 1."""
    return "" if not at or str(at).startswith("0001") else f"{str(at)[:19]}Z"


def judged(engine: Engine, order: Order, id: str, status: int) -> str:
    """Raises StepError for any status but 0."""
    if status:
        raise StepError(
            f"{order.title} ended with exit status {status}; mend it and apply again; nothing was replaced"
            + _said(engine, id),
            host=engine.host,
        )
    return "done"


def _start(engine: Engine, id: str) -> None:
    try:
        engine.start(id)
    except EngineRefused as error:
        raise explained(error) from error


def _ended(engine: Engine, order: Order, id: str) -> int | None:
    found = engine.inspect(id)
    if found is None:
        raise StepError(f"the container of {order.title} was removed while it ran", "apply again", host=engine.host)
    state = found.get("State") or {}
    if state.get("Running") or state.get("Status") == "created":
        return None
    return int(state.get("ExitCode") or 0)


def _said(engine: Engine, id: str) -> str:
    """The last of its log, for the end of a message."""
    try:
        lines = engine.tail(id, TAIL_LINES)
    except K4tError:
        return ""
    return "; the last it said:\n" + "\n".join(f"    {line}" for line in lines) if lines else "; it said nothing"


def _listen(engine: Engine, id: str, say: Say, since: str) -> None:
    """Its log, line by line. A log that can't be read stops nothing."""
    source = Container(id, "", "", "", "", 0, 0, "", "", "")
    try:
        flow = logs.begin(engine, source, since=since, follow=True)
        try:
            for number, line in enumerate(logs.lines(flow, source)):
                if number == MAX_LINES_SHOWN:
                    say("… more of it is in its log")
                    return
                say(line.text)
        finally:
            flow.close()
    except K4tError:
        return


def _put(engine: Engine, order: Order) -> dict[str, str]:
    if not order.app.files:
        return {}
    user = order.app.container.user
    if not user and any(file.secret and not file.owner for file in order.app.files):
        user = str((((engine.image(order.image) or {}).get("Config")) or {}).get("User") or "")
    needed = files_needed(order.app, order.cluster_id, order.name, order.contents, user=user)
    return put_files(engine.transport, needed)


def _remove(engine: Engine, id: str) -> None:
    try:
        engine.remove(id)
    except EngineRefused as error:
        if error.status != 404:
            raise


# --- timers ------------------------------------------------------------------------------------------------


def put_timer(engine: Engine, order: Order) -> str:
    """The timer and its container; a word about it. One that runs is waited for, then made anew.

    The container comes last: it says that everything is there. Raises StepError when it does not end in time.
    """
    there = find(engine, order)
    if there is not None and there.running:
        follow(engine, order, there.id, quiet, threading.Event())
        there = find(engine, order)
    kind = _put_files(engine.transport, order)
    make(engine, order, there)
    return kind


def drop(engine: Engine, cluster_id: str, there: JobRun) -> None:
    """The timer first, so that nothing starts it again; then its container, stopped if it runs."""
    _drop_files(engine.transport, cluster_id, there.app, there.job)
    try:
        engine.stop(there.id, STOP_GRACE_S)
    except EngineRefused as error:
        if error.status != 404:
            raise
    _remove(engine, there.id)
    discard(engine.transport, cluster_id, there.name)


def stem(cluster_id: str, app: str, job: str) -> str:
    """Of all files of one timer; run-parts' alphabet, or cron would skip it. Two dots' worth of doubt (app a-b, job c;
    app a, job b-c) is taken away by the underscore, which no name has."""
    return f"k4t_{cluster_id}_{app}_{job}"


def script_path(cluster_id: str, app: str, job: str) -> str:
    return f"{ROOT}/{cluster_id}/timers/{app}_{job}"


def script(order: Order) -> str:
    """What the host runs: with `due` (cron's) only in a minute of the schedule. Never two at once: the second ends
    with 75. One that takes too long is stopped."""
    path = script_path(order.cluster_id, order.app.name, order.job)
    start, runs, wait, stop = (
        quote(["docker", *words, order.name])
        for words in (
            ["start"],
            ["inspect", "--format", "{{.State.Running}}"],
            ["wait"],
            ["stop", "--time", f"{order.app.stop.grace_s:.0f}"],
        )
    )
    inner = (
        f"{start} >/dev/null || exit\n"
        f"status=$(timeout -k 5 {order.timeout_s:g} {wait})\n"
        f'[ -n "$status" ] || {{ {stop} >/dev/null; status={OVERDUE}; }}\n'
        'exit "$status"'
    )
    return (
        "#!/bin/sh\n"
        f"# Made by k4t for {order.title}, cluster {order.cluster_id}. What is changed here is lost.\n"
        'if [ "$1" = due ]; then\n'
        f"{cron.shell_test(order.schedule, order.timezone)}"
        "fi\n"
        f'[ "$({runs} 2>/dev/null)" != true ] || exit {BUSY}\n'
        f"exec {quote(['flock', '-n', '-o', '-E', str(BUSY), f'{path}.lock', 'sh', '-c', inner])}\n"
    )


def service(order: Order) -> str:
    path = script_path(order.cluster_id, order.app.name, order.job)
    return (
        f"[Unit]\nDescription=k4t: {order.title}\nAfter=docker.service\n\n"
        f"[Service]\nType=oneshot\nExecStart={path}\nSuccessExitStatus={BUSY}\n"
    )


def timer(order: Order) -> str:
    times = "".join(f"OnCalendar={line}\n" for line in cron.on_calendar(order.schedule, order.timezone))
    install = "[Install]\nWantedBy=timers.target\n"
    return f"[Unit]\nDescription=k4t: {order.title}\n\n[Timer]\n{times}AccuracySec=1s\n\n{install}"


def crontab(order: Order) -> str:
    """Every minute: which one is meant, the script knows, in the schedule's own time zone."""
    path = script_path(order.cluster_id, order.app.name, order.job)
    return (
        f"# Made by k4t for {order.title}, cluster {order.cluster_id}. What is changed here is lost.\n"
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        f"* * * * * root {path} due >/dev/null 2>&1\n"
    )


def _put_files(transport: Transport, order: Order) -> str:
    """Which kind of timer it is. A zone that the host doesn't know would silently be UTC."""
    app, job = order.app.name, order.job
    if order.timezone != "UTC" and not transport.run(["test", "-e", f"{ZONES}/{order.timezone}"]).ok:
        raise StepError(
            f"{order.title}: the node does not know the time zone {order.timezone}",
            f"install tzdata on it, or mend the name ({ZONES})",
            host=transport.host,
        )
    transport.put(script_path(order.cluster_id, app, job), script(order).encode(), 0o700)
    name = stem(order.cluster_id, app, job)
    if transport.run(["test", "-d", "/run/systemd/system"]).ok:
        transport.put(f"{SYSTEMD}/{name}.service", service(order).encode())
        transport.put(f"{SYSTEMD}/{name}.timer", timer(order).encode())
        for words in (["daemon-reload"], ["enable", f"{name}.timer"], ["restart", f"{name}.timer"]):
            _done(transport, ["systemctl", *words], f"the timer of {order.title} can't be set")
        return "systemd timer"
    if not transport.run(["test", "-d", CRON]).ok:
        raise StepError(
            f"{order.title} has a schedule, and the node has neither systemd nor {CRON}",
            "install cron on it, or require another node",
            host=transport.host,
        )
    transport.put(f"{CRON}/{name}", crontab(order).encode())
    return "cron"


def _drop_files(transport: Transport, cluster_id: str, app: str, job: str) -> None:
    name, path = stem(cluster_id, app, job), script_path(cluster_id, app, job)
    units = f"{SYSTEMD}/{name}"
    if transport.run(["test", "-e", f"{units}.timer"]).ok:
        transport.run(["systemctl", "disable", "--now", f"{name}.timer"])
        _done(transport, ["rm", "-f", "--", f"{units}.timer", f"{units}.service"], f"{units}.timer can't be removed")
        transport.run(["systemctl", "daemon-reload"])
    files = [f"{CRON}/{name}", path, f"{path}.lock"]
    _done(transport, ["rm", "-f", "--", *files], f"the timer {name} can't be removed")


def _done(transport: Transport, argv: list[str], failed: str) -> None:
    done = transport.run(argv)
    if not done.ok:
        raise StepError(f"{failed}: {done.words()}", host=transport.host)
