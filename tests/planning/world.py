"""A small world for the pure core: trees and observations from plain data, and a model that a plan is applied to."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from k4t.master.planning.endpoints import compose
from k4t.master.planning.plan import (
    Await,
    Create,
    DropJob,
    Plan,
    Publish,
    Refresh,
    Resize,
    ResolvedImage,
    RunJob,
    Slot,
    Step,
    Target,
)
from k4t.master.planning.specs import own_files, resources_label, secret_digests, spec_hash
from k4t.model.app import App, ExecProbe, Health, HttpProbe, Image, ImageProbe, Probe, TcpProbe
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.publish import Certificate
from k4t.model.shared import Share
from k4t.model.spec import Cluster, Tree
from k4t.model.state import (
    BoundPort,
    Container,
    Facts,
    Head,
    JobRun,
    NodeState,
    Observed,
    ParticipantState,
    Revision,
    Size,
)
from k4t.registrar.document import Document, Endpoint, Epoch

CLUSTER = Cluster(name="prod", id="k7f3q2m9")
SMALL = Facts("amd64", "linux", 4.0, 8 << 30)


def value(kind: Any, data: Any) -> Any:
    """Plain data (of YAML) as the value that a field of this type wants."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Image:
        return build(Image, data) if isinstance(data, Mapping) else Image(data)
    if dataclasses.is_dataclass(kind) and isinstance(data, Mapping):
        return build(typing.cast("type[Any]", kind), data)
    if kind is Share:
        return Share(percent=float(data[:-1])) if isinstance(data, str) else Share(data)
    if origin is tuple and isinstance(data, list):
        inner = args[0] if len(args) == 2 and args[1] is Ellipsis else None
        return tuple(value(inner or args[place], item) for place, item in enumerate(data))
    if args and data is not None and type(None) in args:
        return value(next(arg for arg in args if arg is not type(None)), data)
    return data


def build(kind: type[Any], data: Mapping[str, Any], **more: Any) -> Any:
    hints = typing.get_type_hints(kind)
    return kind(**{name: value(hints[name], item) for name, item in data.items()}, **more)


def health(data: Mapping[str, Any] | None) -> Health | None:
    if data is None:
        return None
    rest = dict(data)
    probe: Probe = ImageProbe()
    for name, kind in (("http", HttpProbe), ("tcp", TcpProbe), ("exec", ExecProbe)):
        if name in rest:
            probe = build(kind, rest.pop(name))
    return build(Health, rest, probe=probe)  # type: ignore[no-any-return]


def app(name: str, data: Mapping[str, Any]) -> App:
    fields = {"image": f"{name}:1", **data}
    if fields.get("replicas") == "per-node":
        fields["replicas"] = None
    probe = health(fields.pop("health", None))
    fields["routes"] = [{} if route is None else route for route in fields.get("routes", [])]
    fields["records"] = [{"name": f"{name}.k4t.lab", **(record or {})} for record in fields.get("records", [])]
    return build(App, fields, name=name, health=probe)  # type: ignore[no-any-return]


def tree(data: Mapping[str, Any]) -> Tree:
    nodes = {
        name: build(Node, {"address": f"10.0.{number // 250}.{number % 250}", **(fields or {})}, name=name)
        for number, (name, fields) in enumerate(data.get("nodes", {}).items(), 11)
    }
    gateways = {
        name: build(Gateway, {"address": f"10.0.0.{number}", "driver": "envoy", **(fields or {})}, name=name)
        for number, (name, fields) in enumerate(data.get("gateways", {}).items(), 211)
    }
    names = {
        name: build(Dns, {"address": "10.0.0.250", "driver": "dnsmasq", "zone": "k4t.lab", **(f or {})}, name=name)
        for name, f in data.get("dns", {}).items()
    }
    apps = {name: app(name, fields or {}) for name, fields in data.get("apps", {}).items()}
    cluster = build(Cluster, {"name": CLUSTER.name, "id": CLUSTER.id, **data.get("cluster", {})})
    hashes = data.get("app_sha256", {})
    certificates = {name: Certificate(name, **fields) for name, fields in data.get("certificates", {}).items()}
    return Tree(
        cluster, nodes, apps, gateways, names, certificates, sha256=data.get("sha256", "t1"), app_sha256=hashes,
        gone=app("", data.get("gone", {})),
    )  # fmt: skip


def images(desired: Tree, archs: Mapping[str, list[str]] | None = None) -> dict[str, ResolvedImage]:
    """The digest of a reference is the reference itself, as it were."""
    return {
        name: ResolvedImage(
            one.image.reference,
            f"sha256:{one.image.reference}",
            tuple((archs or {}).get(name, ())),
        )
        for name, one in desired.apps.items()
    }


def empty(desired: Tree, facts: Facts = SMALL) -> Observed:
    return Observed(
        nodes={name: NodeState(name, True, facts=facts) for name in desired.nodes},
        gateways={n: ParticipantState("gateway", n, g.group, g.driver, True) for n, g in desired.gateways.items()},
        dns={n: ParticipantState("dns", n, d.group, d.driver, True) for n, d in desired.dns.items()},
    )


class Model:
    """Hosts as a plan changes them, step by step. Raises AssertionError where a step can't be right."""

    def __init__(self, desired: Tree, observed: Observed, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self.desired = desired
        self.observed = observed
        self.containers = {c.id: c for state in observed.nodes.values() for c in state.containers}
        self.names = {(c.node, c.name) for c in self.containers.values()}
        self.jobs = {(run.node, run.name): run for state in observed.nodes.values() for run in state.jobs}
        self.made: dict[Slot, Container] = {}
        self.documents = {
            (state.kind, state.group): state.document
            for states in (observed.gateways, observed.dns)
            for state in states.values()
            if state.document is not None and state.reachable
        }
        self.seq = 1 + max((d.seq for d in self.documents.values()), default=0)
        self.count = 0

    def apply(self, plan: Plan, fail: Iterable[str] = (), upto: int | None = None) -> list[str]:
        """The ids of what was done, in the plan's order; a failed step stops what depends on it."""
        done: dict[str, bool] = {}
        known = {step.id for step in plan.steps}
        for step in plan.steps[:upto]:
            for before in (*step.after, *step.awaits):
                assert before in done or before not in known, f"{step.id} comes before {before}, which it depends on"
            ready = all(done.get(before, True) for before in step.after) and step.id not in fail
            if ready and isinstance(step.work, Publish):
                ready = self.publish(step, done)
            elif ready:
                ready = self.do(step)
            done[step.id] = ready
        return [id for id, good in done.items() if good]

    def do(self, step: Step) -> bool:
        work = step.work
        if isinstance(work, Create):
            self._create(work)
        elif isinstance(work, Target):
            container = self._of(work.slot)
            state = {"start": "running", "stop": "exited"}.get(step.action)
            if state is None:
                del self.containers[container.id]
                self.names.discard((container.node, container.name))
            else:
                self.containers[container.id] = dataclasses.replace(container, state=state)
        elif isinstance(work, Await):
            return self._of(work.slot).running
        elif isinstance(work, Refresh):
            container = self._of(work.slot)
            assert container.running, f"{step.id}: {container.name} does not run"
            self.containers[container.id] = dataclasses.replace(container, files=work.files)
        elif isinstance(work, RunJob):
            status, zone = (None, f"{work.schedule} {work.timezone}") if work.schedule else (0, "")
            self.jobs[step.node, work.name] = JobRun(
                work.name, work.name, step.node, step.app, work.job, work.key, zone, exit_status=status
            )
        elif isinstance(work, DropJob):
            del self.jobs[step.node, work.name]
        elif isinstance(work, Resize):
            container = self._of(work.slot)
            self.containers[container.id] = dataclasses.replace(container, resources=work.resources)
        return True

    def _create(self, work: Create) -> None:
        assert (work.slot.node, work.name) not in self.names, work.name
        self.names.add((work.slot.node, work.name))
        self.count += 1
        id = f"{work.slot.app}-{work.slot.replica}-{work.slot.generation}-{self.seq}-{self.count}"
        address = work.address or self._address(work)
        container = container_of(self.desired, work.app, work.slot, id=id, ports=work.ports, address=address)
        container = dataclasses.replace(container, spec=work.spec, resources=work.resources, revision=work.revision)
        self.containers[id] = dataclasses.replace(container, state="created", created_s=int(self.now_s))
        self.made[work.slot] = self.containers[id]

    def _address(self, work: Create) -> str:
        """As a host chooses one, where containers have their own: the lowest that none has which is not given up."""
        pool = self.desired.nodes[work.slot.node].pool
        if work.app.network.mode not in ("macvlan", "ipvlan"):
            return ""
        assert pool is not None, f"{work.name} is on a node without addresses"
        others = (c for c in self.containers.values() if c.node == work.slot.node and c.name not in work.instead_of)
        held = {c.address for c in others}
        low, high = map(ipaddress.ip_address, (pool.first, pool.last))
        free = [str(low + n) for n in range(int(high) - int(low) + 1) if str(low + n) not in held]
        assert free, f"{work.name}: no address is left on {work.slot.node}"
        return free[0]

    def _of(self, slot: Slot) -> Container:
        return self.containers[slot.container or self.made[slot].id]

    def publish(self, step: Step, done: Mapping[str, bool]) -> bool:
        work = step.work
        assert isinstance(work, Publish)
        adds = [slot for slot in work.add if done.get(f"await:{slot.label}", True)]
        whole = all(done.get(id, True) for id in step.awaits)
        for slot in adds:
            assert self._of(slot).running, f"{step.id} publishes {slot.label}, which does not run"
        key = (work.kind, work.group)
        composed = compose(
            self.documents.get(key),
            self.desired,
            work.kind,
            work.group,
            add=[(slot, self._of(slot)) for slot in adds],
            remove=work.remove if whole else (),
            settle=work.settle,
            restore=work.restore,
            former=work.former,
        )
        self.seq += 1
        self.documents[key] = dataclasses.replace(composed, epoch=Epoch(1, "r"), seq=self.seq)
        return whole

    def observe(self) -> Observed:
        nodes = {
            name: dataclasses.replace(
                state,
                containers=tuple(c for _, c in sorted(self.containers.items()) if c.node == name),
                jobs=tuple(run for _, run in sorted(self.jobs.items()) if run.node == name),
            )
            if state.reachable
            else state
            for name, state in self.observed.nodes.items()
        }

        def member(state: ParticipantState) -> ParticipantState:
            document = self.documents.get((state.kind, state.group))
            return dataclasses.replace(state, document=document, rendered=True, differences=())

        return Observed(
            nodes=nodes,
            gateways={name: member(state) for name, state in self.observed.gateways.items()},
            dns={name: member(state) for name, state in self.observed.dns.items()},
        )


def container_of(
    desired: Tree,
    one: App,
    slot: Slot,
    *,
    id: str = "",
    ports: Mapping[str, int] | None = None,
    address: str = "",
    **fields: Any,
) -> Container:
    """What Docker would show of a container made from this app."""
    node = desired.nodes[slot.node]
    reference = one.image.reference
    bound = []
    for place, port in enumerate(one.ports):
        number = (ports or {}).get(port.name)
        if number is None:
            number = port.host if isinstance(port.host, int) else port.container
        if number is None or (one.network.mode == "bridge" and port.host == "auto"):
            number = 20000 + 8 * int(slot.replica if slot.replica.isdigit() else 0) + 4 * place + slot.generation % 4
        bound.append(BoundPort(port.name, number, port.protocol))
    common: dict[str, Any] = {
        "id": id or f"{slot.app}-{slot.replica}-{slot.generation}",
        "name": f"{desired.cluster.name}.{slot.app}.{slot.replica}.{slot.generation}",
        "revision": 1,
        "spec": spec_hash(one, f"sha256:{reference}"),
        "resources": resources_label(one),
        "secrets": tuple(sorted((name, digest) for name, digest in secret_digests(one).items() if digest)),
        "files": tuple(sorted(own_files(one).items())),
        "address": address or node.address,
        "ports": tuple(bound),
        "image": reference,
    }
    return Container(
        node=slot.node, app=slot.app, replica=slot.replica, generation=slot.generation, **{**common, **fields}
    )


def filled(desired: Tree, observed: Observed, plan: Plan) -> Observed:
    """`observed` after a first deploy, with one publication for all apps: the model's are too slow for large worlds."""
    model = Model(desired, observed)
    model.apply(dataclasses.replace(plan, steps=tuple(s for s in plan.steps if not isinstance(s.work, Publish))))
    slots = [(Slot(c.app, c.replica, c.generation, c.node, c.id), c) for c in model.containers.values()]
    for state in (*observed.gateways.values(), *observed.dns.values()):
        model.documents[state.kind, state.group] = compose(
            None, desired, state.kind, state.group, add=slots, settle=frozenset(desired.apps)
        )
    return model.observe()


def at_rest(desired: Tree, observed: Observed | None = None, scope: Iterable[str] | None = None) -> Observed:
    """What is there after everything in the tree has been applied."""
    from k4t.master.planning.reconcile import reconcile  # the model is built with what it tests: cases stay short

    start = observed or empty(desired)
    model = Model(desired, start)
    model.apply(reconcile(desired, start, images=images(desired), scope=None if scope is None else list(scope)))
    return model.observe()


def head(data: Mapping[str, Any]) -> Head:
    revisions = tuple(Revision(r["serial"], r.get("tree", ""), r.get("apps", {})) for r in data.get("revisions", []))
    sizes = {app: Size(number, "anna", "2026-01-01T00:00:00Z") for app, number in data.get("sizes", {}).items()}
    return Head(CLUSTER.id, data.get("serial", 0), data.get("tree", ""), revisions, sizes=sizes)


def document(kind: Any, group: str, endpoints: Iterable[Endpoint], **fields: Any) -> Document:
    return Document(
        CLUSTER.id, CLUSTER.name, kind, group, Epoch(1, "r"), 1, endpoints=tuple(sorted(endpoints)), **fields
    )


def label(container: Container) -> str:
    return f"{container.app}.{container.replica}.{container.generation}@{container.node}"


def slot(name: str) -> Slot:
    """Of “web.0.1@node1”."""
    app_name, replica, rest = name.split(".")
    generation, node = rest.split("@")
    return Slot(app_name, replica, int(generation), node)


def exclusive(one: App) -> bool:
    return one.update.strategy == "recreate" or any(v.binds_to_node and not v.shared_writers for v in one.volumes)
