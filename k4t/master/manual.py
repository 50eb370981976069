"""A plan as lines of a shell, in order: what k4t would do, for a person who wants to do it, or see it, by hand.

What only k4t can do (publish, wait for health from outside) stands there as a comment that says what it is.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from k4t.command import quote
from k4t.errors import K4tError
from k4t.master.fleet import merged
from k4t.master.planning.plan import (
    Await,
    Create,
    DropJob,
    Fetch,
    Pause,
    Plan,
    Publish,
    Refresh,
    Resize,
    RunJob,
    Step,
    Target,
)
from k4t.master.planning.ranges import pinned_addresses
from k4t.master.planning.specs import own_files, secret_digests
from k4t.master.run import Run
from k4t.master.vault import secrets_of
from k4t.model.app import HttpProbe, Volume
from k4t.model.hosts import Node, Ssh
from k4t.node import commands, create
from k4t.node.addresses import has_own_address
from k4t.node.body import in_place
from k4t.node.files import Placed, files_needed, private_directory
from k4t.node.labels import pairs_written
from k4t.node.networks import network_body
from k4t.node.reference import pinned, split
from k4t.node.refresh import RESTART, state_path
from k4t.tree.contents import file_contents

WAIT_TRIES = 60
FORMAT = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"


def lines(run: Run, plan: Plan) -> Iterator[str]:
    """The whole plan, runnable by bash from where k4t runs. Raises K4tError for what can't be foreseen."""
    yield "set -e"
    for step in ordered(plan.steps):
        yield f"# {step.id}: {step.cause}"
        yield from _step(run, step)
    for sentence in (*plan.not_done, *plan.refused):
        yield f"# not done: {sentence}"


def ordered(steps: tuple[Step, ...]) -> list[Step]:
    """Each after what it follows, else as the plan has them."""
    known = {step.id for step in steps}
    done: set[str] = set()
    waiting, found = list(steps), []
    while waiting:
        ready = [one for one in waiting if not ({*one.after, *one.awaits} & known) - done]
        if not ready:
            raise K4tError("the plan's steps follow each other in a circle", "please report it")
        found.append(ready[0])
        done.add(ready[0].id)
        waiting.remove(ready[0])
    return found


def _step(run: Run, step: Step) -> Iterator[str]:
    work = step.work
    if isinstance(work, Publish):
        yield from _publish(work)
        return
    if isinstance(work, Pause):
        yield f"sleep {work.duration_s:g}"
        return
    node = run.tree.nodes[step.node]
    if isinstance(work, Fetch):
        yield from _fetch(run, node, work)
    elif isinstance(work, Create):
        yield from _create(run, node, work)
    elif isinstance(work, Await):
        yield from _await(run, node, work)
    elif isinstance(work, Resize):
        yield on(run, node, commands.update(work.name, in_place(work.app)))
    elif isinstance(work, Refresh):
        yield from _refresh(run, node, work)
    elif isinstance(work, RunJob):
        yield quote(["k4t", "job", "run", step.app, work.job]) if not work.schedule else "# only k4t sets timers"
    elif isinstance(work, DropJob):
        yield "# only k4t takes timers away"
    else:
        yield from _change(run, node, step, work)


def _fetch(run: Run, node: Node, work: Fetch) -> Iterator[str]:
    repository, tag = split(work.image.reference)
    if work.archive:
        path = run.directory / "apps" / work.app / work.archive
        yield f"{on(run, node, ['docker', 'load', '-q'], fed=True)} < {quote([str(path)])}"
    else:
        yield on(run, node, ["docker", "pull", "-q", pinned(work.image)])
    yield on(run, node, ["docker", "tag", pinned(work.image), f"{repository}:{tag}"])


def _create(run: Run, node: Node, work: Create) -> Iterator[str]:
    secrets = {name: f"${{secret:{name}}}" for name in secrets_of(work.app)}
    order = create.Order(
        cluster_id=run.tree.cluster.id, name=work.name, app=work.app, replica=work.slot.replica,
        generation=work.slot.generation, image=pinned(work.image), revision=work.revision, spec=work.spec,
        resources=work.resources, ports=work.ports, instead_of=work.instead_of, secrets=secrets,
        address=work.address, reserved=pinned_addresses(run.tree.apps.values()),
        digests={name: digest for name, digest in secret_digests(work.app).items() if digest},
        own_files=own_files(work.app),
        contents=file_contents(run.directory, work.app, run.tree.cluster.variables, secrets),
    )  # fmt: skip
    try:
        body, files = create.foresee(run.fleet.engine(node.name), node, order)
    except K4tError as error:
        yield f"# can't be done by hand: {error}"
        yield "false"
        return
    secret_targets = {file.target for file in work.app.files if file.secret}
    for file in files:
        yield from _file(run, node, file, secret=file.target in secret_targets)
    for volume in work.app.volumes:
        yield from _volume(run, node, volume)
    if secrets:
        yield f"# secrets are not printed: put values in place of {' '.join(secrets.values())}"
    if missing := commands.unsaid(body):
        yield f"# docker create has no words for {', '.join(missing)}: k4t apply sets them"
    if node.pool is not None and has_own_address(work.app):
        yield _network(run, node, network_body(work.app.network.mode, node.pool))
    yield on(run, node, commands.create(work.name, body))


def _network(run: Run, node: Node, body: Mapping[str, Any]) -> str:
    """Made unless it is there."""
    script = f"docker network inspect {body['Name']} >/dev/null 2>&1 || {quote(commands.network(body))}"
    return on(run, node, ["sh", "-c", script])


def _file(run: Run, node: Node, file: Placed, *, secret: bool) -> Iterator[str]:
    path, directory = quote([file.path]), quote([file.path.rpartition("/")[0]])
    owner = f" && chown {quote([file.owner])} {path}" if file.owner else ""
    script = f"mkdir -p {directory} && base64 -d > {path} && chmod {file.mode:o} {path}{owner}"
    takes = on(run, node, ["sh", "-c", script], fed=True)
    if secret:
        yield f"# secret file {file.target}: its value, in base64, into: {takes}"
    else:
        yield f"echo {base64.b64encode(file.data).decode()} | {takes}"


def _refresh(run: Run, node: Node, work: Refresh) -> Iterator[str]:
    """Into the files themselves, since Docker has mounted those and not their names."""
    changing = tuple(file for file in work.app.files if file.target in work.targets)
    app = dataclasses.replace(work.app, env=(), files=changing)
    secrets = {name: f"${{secret:{name}}}" for name in secrets_of(app)}
    contents = file_contents(run.directory, app, run.tree.cluster.variables, secrets)
    secret_targets = {file.target for file in changing if file.secret}
    for file in files_needed(app, run.tree.cluster.id, work.name, contents, user="0"):
        takes = on(run, node, ["sh", "-c", f"base64 -d > {quote([file.path])}"], fed=True)
        if file.target in secret_targets:
            yield f"# secret file {file.target}: its value, in base64, into: {takes}"
        else:
            yield f"echo {base64.b64encode(file.data).decode()} | {takes}"
    for signal in work.signals:
        restart = ["docker", "restart", "-t", f"{max(0, round(work.app.stop.grace_s))}", work.name]
        yield on(run, node, restart if signal == RESTART else ["docker", "kill", "-s", signal, work.name])
    state = on(run, node, ["sh", "-c", f"cat > {quote([state_path(run.tree.cluster.id, work.name)])}"], fed=True)
    yield f"echo {quote([pairs_written(work.files)])} | {state}"


def _volume(run: Run, node: Node, volume: Volume) -> Iterator[str]:
    """A directory that is there stays as it is; a named volume is made by docker create."""
    if volume.path and not volume.read_only:
        owner, path = quote([volume.owner or "root"]), quote([volume.path])
        script = f"[ -e {path} ] || {{ mkdir -p -- {path} && chown -- {owner} {path}; }}"
        yield on(run, node, ["sh", "-c", script])
    elif volume.name and volume.owner:
        yield f"# when volume {volume.name} is new, its directory belongs to {volume.owner}: chown it"


def _await(run: Run, node: Node, work: Await) -> Iterator[str]:
    """What Docker knows can be waited for; the probe from outside is a person's."""
    inspect = f"docker inspect -f {quote([FORMAT])} {quote([work.name])}"
    loop = (
        f'for i in $(seq {WAIT_TRIES}); do case "$({inspect})" in healthy|running) exit 0;; esac; sleep 1; done; exit 1'
    )
    yield on(run, node, ["sh", "-c", loop])
    probe = work.app.health.probe if work.app.health else None
    if isinstance(probe, HttpProbe):
        first, last = probe.status
        yield f"# now GET {probe.path} at its port must answer {first}-{last}; go on only then"
    elif work.app.ports:
        yield "# now its ports must accept connections; go on only then"


def _change(run: Run, node: Node, step: Step, work: Target) -> Iterator[str]:
    if step.action == "start":
        yield on(run, node, ["docker", "start", work.name])
    elif step.action == "stop":
        yield on(run, node, ["docker", "stop", "-t", f"{max(0, round(work.grace_s))}", work.name])
    else:
        yield on(run, node, ["docker", "rm", "-v", work.name])
        yield on(run, node, ["rm", "-rf", "--", private_directory(run.tree.cluster.id, work.name)])


def _publish(work: Publish) -> Iterator[str]:
    what = [f"+{slot.label}" for slot in work.add] + [f"-{slot.label}" for slot in work.remove]
    what += [f"routes and records of {app}" for app in work.settle]
    yield f"# publish in {work.kind} group {work.group}: {' '.join(what)}"
    yield "#   only k4t keeps a group in step: k4t apply does it; k4t-registrar add on a member makes a manual entry"


def on(run: Run, node: Node, argv: list[str], *, fed: bool = False) -> str:
    """One line of a shell here that runs exactly `argv` there, quoted once for each of the two shells. Unless it is
    `fed`, ssh must not read: it would swallow the lines that follow."""
    ssh = merged(run.tree.cluster.ssh, node.ssh)
    remote = quote(["sudo", "-n", *argv] if ssh.sudo else argv)
    return quote(["ssh", *([] if fed else ["-n"]), *_options(run, ssh), _login(ssh, node), remote])


def _options(run: Run, ssh: Ssh) -> Iterator[str]:
    """ssh expands ~ in values of options by itself."""
    if ssh.port:
        yield from ("-p", str(ssh.port))
    if ssh.key:
        yield from ("-o", f"IdentityFile={ssh.key}")
    if ssh.jump:
        yield from ("-J", ssh.jump)
    known = run.directory / "known_hosts"
    if known.exists():
        yield from ("-o", f"UserKnownHostsFile={known} ~/.ssh/known_hosts")


def _login(ssh: Ssh, node: Node) -> str:
    host = ssh.host or node.address
    return f"{ssh.user}@{host}" if ssh.user else host
