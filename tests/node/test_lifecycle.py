"""Containers on a real Engine over real SSH: made, changed and ended, whatever goes wrong in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from k4t.errors import (
    DockerHangs,
    DockerUnavailable,
    EngineRefused,
    ImageNotFound,
    NameTaken,
    PortTaken,
    StepError,
    Unreachable,
)
from k4t.model.app import Env, File, Network, Port, Resources, Volume
from k4t.model.hosts import Node, Ssh
from k4t.model.shared import Where
from k4t.model.state import BoundPort, Container, Head
from k4t.node import lifecycle
from k4t.node.call import MAX_CONNECTIONS
from k4t.node.create import Order, create
from k4t.node.docker import Engine, Json
from k4t.node.observe import TIMEOUT_S, containers, observe
from k4t.remote import head
from k4t.remote.lock import host_lock
from k4t.remote.ssh import Connector
from tests.lab import Host, Lab
from tests.node.conftest import CLUSTER, HOLDER
from tests.node.faulty import Faulty

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
AUTO = Port(host="auto", where=Where("apps/web/app.xml", 4))
Orders = Callable[..., Order]
Make = Callable[[Order], Container]


def test_a_container_lives_from_create_to_remove(engine: Engine, make: Make, order: Orders) -> None:
    """Each step does its work, and done again it does nothing and is no error."""
    wanted = order(ports=(AUTO,))
    made = make(wanted)
    assert made.ports == (BoundPort("main", 20000),)
    assert make(wanted).id == made.id
    for _ in range(2):
        lifecycle.start(engine, CLUSTER, made.id)
    (seen,) = containers(engine, "n1", CLUSTER)
    assert (seen.id, seen.name, seen.running, seen.ports) == (made.id, wanted.name, True, made.ports)
    for _ in range(2):
        lifecycle.stop(engine, CLUSTER, wanted.name, grace_s=2)
    for _ in range(2):
        lifecycle.remove(engine, CLUSTER, made.id)
    assert containers(engine, "n1", CLUSTER) == ()
    lifecycle.stop(engine, CLUSTER, wanted.name)
    with pytest.raises(StepError, match=r"is gone; apply again"):
        lifecycle.start(engine, CLUSTER, made.id)


def test_a_running_container_is_not_removed(engine: Engine, make: Make, order: Orders) -> None:
    """Remove is for what has been stopped; force is never used."""
    made = make(order())
    lifecycle.start(engine, CLUSTER, made.id)
    with pytest.raises(EngineRefused, match="running container"):
        lifecycle.remove(engine, CLUSTER, made.id)


def test_limits_change_in_place(engine: Engine, make: Make, order: Orders) -> None:
    """Limits are set, raised and lifted while it runs, and what really holds is read back."""
    wanted = order(resources=Resources(cpus=0.5, memory_bytes=64 * MIB))
    made = make(wanted)
    lifecycle.start(engine, CLUSTER, made.id)
    assert lifecycle.settings(engine, made.id) == (wanted.app.resources, "unless-stopped")
    for resources in (Resources(cpus=2.0, memory_bytes=128 * MIB, pids=99), Resources(), wanted.app.resources):
        lifecycle.resize(engine, CLUSTER, made.id, replace(wanted.app, resources=resources))
        assert lifecycle.settings(engine, made.id) == (resources, "unless-stopped")


def test_mounts_stand_ready(engine: Engine, make: Make, order: Orders, host: Host) -> None:
    """Files with mode and owner, directories, volumes and a tmpfs are there, owned as the tree says."""
    wanted = order(
        contents={"/etc/web.conf": b"hello", "/secret/key": b"secret"},
        command=("sleep", "60"),
        files=(File("/etc/web.conf", source="web.conf"), File("/secret/key", secret="key", mode=0o400, owner="7:8")),
        volumes=(
            Volume("/data", path="/srv/test-data", owner="5:6"),
            Volume("/db", name="test-db", owner="9:9"),
            Volume("/scratch", tmpfs_bytes=MIB, owner="3:4"),
        ),
    )
    made = make(wanted)
    assert make(wanted).id == made.id
    lifecycle.start(engine, CLUSTER, made.id)
    shown = "cat /etc/web.conf; ls -lnd /etc/web.conf /secret/key /data /db /scratch"
    lines = host.docker(["exec", made.id, "sh", "-c", shown]).stdout
    fields = {line.split()[-1]: line.split()[:4] for line in lines.replace("hello", "").splitlines()}
    assert lines.startswith("hello")
    assert fields["/etc/web.conf"][0] == "-r--r--r--"
    assert fields["/secret/key"][0] == "-r--------"
    owners = {name: tuple(words[2:4]) for name, words in fields.items()}
    assert (owners["/secret/key"], owners["/data"], owners["/db"], owners["/scratch"]) == (
        ("7", "8"),
        ("5", "6"),
        ("9", "9"),
        ("3", "4"),
    )
    host.docker(["rm", "-f", made.id])
    host.docker(["volume", "rm", "test-db"])


def test_bridge_ports_are_published_on_the_service_address(
    engine: Engine, make: Make, order: Orders, host: Host
) -> None:
    """Reachable where traffic goes, and nowhere else."""
    port = Port(container=8080, host="auto")
    made = make(order(network=Network("bridge"), ports=(port,)))
    lifecycle.start(engine, CLUSTER, made.id)
    bound = host.docker(["port", made.id]).stdout.strip()
    assert bound == f"8080/tcp -> {host.address}:{made.ports[0].number}"


def test_ports_of_other_clusters_and_sockets_are_left_alone(
    engine: Engine, make: Make, order: Orders, host: Host
) -> None:
    """Numbers differ among containers of all clusters that are created at once, and from what listens."""
    host.spawn("listener", ["python3", "-m", "http.server", "20001"], listens_on=20001)
    orders = [replace(order(ports=(AUTO,)), cluster_id=f"c{index % 2}") for index in range(6)]
    try:
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(make, orders))
    finally:
        host.stop("listener")
    assert sorted(one.ports[0].number for one in made) == [20000, 20002, 20003, 20004, 20005, 20006]


def test_two_masters_never_take_one_number(
    lab: Lab, connector: Connector, make: Make, node: Node, order: Orders
) -> None:
    """Two runs on connections of their own allocate at the same time on one host."""
    address = lab.host("n1").address
    other = connector.connect("n1", Ssh(host=address, user="root", key=str(lab.key)), address)
    with closing(other), closing(Engine(other)) as engine:

        def elsewhere(one: Order) -> Container:
            return create(engine, node, one, lambda: host_lock(other, HOLDER))

        orders = [replace(order(ports=(AUTO,)), cluster_id=f"c{index % 2}") for index in range(8)]
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda pair: pair[0](pair[1]), zip([make, elsewhere] * 4, orders, strict=True)))
    assert sorted(one.ports[0].number for one in made) == list(range(20000, 20008))


def test_streaming_calls_give_their_connections_back(engine: Engine, make: Make, order: Orders) -> None:
    """Logs, pulls and loads dial through the same bounded pool as everything else."""
    made = make(order(command=("echo", "hello")))
    lifecycle.start(engine, CLUSTER, made.id)
    _until(lambda: engine.tail(made.id, 10)[-1:] == ["hello"])
    for _ in range(2 * MAX_CONNECTIONS):
        assert engine.tail(made.id, 1) == ["hello"]
        with pytest.raises(EngineRefused, match="No such container"):
            engine.tail("f" * 64, 1)


def test_a_taken_port_is_refused_with_its_holder(engine: Engine, make: Make, order: Orders, host: Host) -> None:
    """Node, line, port and the process that has it; nothing is created."""
    host.spawn("listener", ["python3", "-m", "http.server", "8080"], listens_on=8080)
    wanted = order(ports=(Port(container=8080, where=Where("apps/web/app.xml", 4)),))
    try:
        with pytest.raises(PortTaken, match=r"apps/web/app.xml:4: port 8080/tcp of n1 .* is taken by .*python3"):
            make(wanted)
    finally:
        host.stop("listener")
    assert containers(engine, "n1", CLUSTER) == ()


def test_a_port_that_was_freed_meanwhile_is_free(
    make: Make, order: Orders, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is shared for a while: what listened when it was taken may have ended since."""
    monkeypatch.setattr("k4t.node.allocator.LINGER_S", 15.0)
    host.spawn("listener", ["python3", "-m", "http.server", "8080"], listens_on=8080)
    make(order(ports=(AUTO,)))
    host.stop("listener")
    assert make(order(ports=(Port(container=8080),))).ports == (BoundPort("main", 8080),)


def test_one_listing_serves_all_containers_of_a_hold(
    engine: Engine, make: Make, order: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers differ although Docker is asked once; one that a removal has freed is seen to be free."""
    monkeypatch.setattr("k4t.node.allocator.LINGER_S", 15.0)
    asked: list[int] = []
    listing = engine.list_containers

    def counted() -> list[Json]:
        asked.append(1)
        return listing()

    monkeypatch.setattr(engine, "list_containers", counted)
    fixed = Port(container=8080, where=AUTO.where)
    first = make(order(ports=(fixed,)))
    others = [make(order(ports=(AUTO,))) for _ in range(3)]
    assert len({one.ports[0].number for one in others}) == 3
    assert len(asked) == 1
    with pytest.raises(PortTaken, match=first.name):
        make(order(ports=(fixed,)))
    lifecycle.remove(engine, CLUSTER, first.id)
    assert make(order(ports=(fixed,))).ports == (BoundPort("main", 8080),)


def test_a_published_port_taken_before_the_start_is_said(engine: Engine, make: Make, order: Orders, host: Host) -> None:
    """Free when it was allocated, taken when it starts: port and holder are named."""
    made = make(order(network=Network("bridge"), ports=(Port(container=8080, host=21000),)))
    host.spawn("listener", ["python3", "-m", "http.server", "21000"], listens_on=21000)
    try:
        with pytest.raises(PortTaken, match=r"can't have its port, it is taken by .*python3"):
            lifecycle.start(engine, CLUSTER, made.id)
    finally:
        host.stop("listener")
    lifecycle.start(engine, CLUSTER, made.id)


@pytest.mark.parametrize("fault", ["lose_reply_to", "lose_request"])
def test_a_lost_create_is_found_or_made(
    engine: Engine, make: Make, order: Orders, transport: Faulty, fault: str
) -> None:
    """Whether the request or only its reply is lost: exactly one container in the end."""
    wanted = order()
    setattr(transport, fault, b"POST /v1.41/containers/create")
    made = make(wanted)
    assert [one.id for one in containers(engine, "n1", CLUSTER)] == [made.id]


def test_a_lost_connection_is_in_doubt(engine: Engine, make: Make, order: Orders, transport: Faulty) -> None:
    """With the connection gone nothing can be looked up: it is said, and the next run finds the container."""
    wanted = order()
    transport.lose_reply_to, transport.dead = b"POST /v1.41/containers/create", True
    with pytest.raises(Unreachable, match="SSH connection ended"):
        make(wanted)
    transport.dead = False
    assert make(wanted).id == containers(engine, "n1", CLUSTER)[0].id


def test_repeatable_calls_survive_a_dead_idle_connection(engine: Engine, transport: Faulty) -> None:
    """An Engine that was restarted has closed our idle connection: the call is made again on a new one."""
    engine.list_containers()
    transport.lose_reply_to = b"GET /v1.41/containers/json"
    engine.list_containers()


def test_a_strangers_name_is_refused_and_left_alone(
    engine: Engine, make: Make, order: Orders, host: Host, lab: Lab
) -> None:
    """A container that is not ours keeps its name, its id, and runs on, whatever is asked for."""
    wanted = order()
    id = host.docker(["run", "-d", "--name", wanted.name, lab.image, "sleep", "60"]).stdout.strip()
    with pytest.raises(NameTaken, match=f"held by container {id[:12]}, not made by k4t"):
        make(wanted)
    with pytest.raises(NameTaken):
        make(replace(wanted, app=replace(wanted.app, ports=(AUTO,))))
    for act in (lifecycle.start, lifecycle.stop, lifecycle.remove):
        with pytest.raises(NameTaken):
            act(engine, CLUSTER, wanted.name)
    assert host.docker(["inspect", "-f", "{{.State.Running}}", id]).stdout.strip() == "true"


def test_another_clusters_container_is_a_stranger(engine: Engine, make: Make, order: Orders) -> None:
    """Same name, other cluster: its id is said, and it is left alone."""
    wanted = order()
    make(replace(wanted, cluster_id="other"))
    with pytest.raises(NameTaken, match="of cluster other"):
        make(wanted)


def test_the_same_name_with_another_spec_is_said(engine: Engine, make: Make, order: Orders) -> None:
    """A half-made container of an older plan is not taken for the wanted one."""
    wanted = order()
    make(wanted)
    with pytest.raises(StepError, match="made from another spec"):
        make(replace(wanted, spec="v1:new"))


def test_names_that_look_like_ids_match_nothing_else(engine: Engine, make: Make, order: Orders) -> None:
    """The Engine takes a bare name for the beginning of an id; we don't."""
    made = make(order())
    lifecycle.remove(engine, CLUSTER, made.id[:12])
    assert [one.id for one in containers(engine, "n1", CLUSTER)] == [made.id]


def test_a_missing_image_is_named(engine: Engine, make: Make, order: Orders) -> None:
    """Gone between pull and create: the reference and the node are in the message."""
    with pytest.raises(ImageNotFound, match=r"n1: image nowhere:1"):
        make(order("nowhere:1"))


def test_a_docker_refusal_comes_through(engine: Engine, make: Make, order: Orders) -> None:
    """What the Engine says of a command that isn't there is shown as it is."""
    made = make(order(command=("/no/such",)))
    with pytest.raises(EngineRefused, match="no such file or directory"):
        lifecycle.start(engine, CLUSTER, made.id)


# --- observing ---------------------------------------------------------------------------------------------


def test_a_node_is_seen_with_one_call_and_one_command(
    engine: Engine, make: Make, order: Orders, transport: Faulty
) -> None:
    """Containers, strangers, facts and head: one request to the Engine and one command beside it."""
    made = make(order(env=(Env("A", "b"),)))
    make(replace(order(), cluster_id="other"))
    written = Head(CLUSTER, serial=5, who="me", at="2026-01-01T00:00:00Z")
    head.write(transport, written)
    transport.requests.clear()
    transport.commands.clear()
    state = observe("n1", transport, CLUSTER)
    assert (len(transport.requests), len(transport.commands)) == (1, 1)
    assert state.reachable
    assert [one.id for one in state.containers] == [made.id]
    assert [one.cluster for one in state.strangers] == ["other"]
    assert state.facts.arch in {"amd64", "arm64"}
    assert state.facts.cpus >= 1
    assert state.facts.memory_bytes > 256 * MIB
    assert state.head == written


def test_a_hung_daemon_is_unknown(host: Host, transport: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts and says nothing: a time-out, in words, never an empty node."""
    monkeypatch.setattr("k4t.node.observe.PATIENCE_S", 1.0)
    host.pause_docker()
    try:
        state = observe("n1", transport, CLUSTER)
    finally:
        host.resume_docker()
    assert not state.reachable
    assert state.exit_status == 69
    assert "does not answer within 1 s: its daemon hangs" in state.problem
    assert "systemctl restart docker" in state.problem


def test_a_slow_daemon_is_no_hung_one(transport: Faulty, make: Make, order: Orders) -> None:
    """Its listing takes too long but a ping is answered: it is asked again, with patience."""

    class Slow(Engine):
        def begin_listing(self, timeout_s: float = TIMEOUT_S) -> Callable[[], list[Json]]:
            listing = super().begin_listing(timeout_s)

            def late() -> list[Json]:
                listing()
                raise DockerHangs("too late")

            return listing if timeout_s == TIMEOUT_S else late

    made = make(order())
    state = observe("n1", transport, CLUSTER, engine=Slow(transport))
    assert [one.id for one in state.containers] == [made.id]


def test_a_stopped_daemon_is_unknown(host: Host, engine: Engine, transport: Faulty) -> None:
    """Stopped under way and stopped before: both are said, and it is there again after."""
    engine.list_containers()
    host.stop_docker()
    try:
        state = observe("n1", transport, CLUSTER, engine=engine)
        again = observe("n1", transport, CLUSTER)
    finally:
        host.start_docker()
    assert (state.reachable, again.reachable) == (False, False)
    assert (state.exit_status, again.exit_status) == (69, 69)
    assert "Docker" in again.problem
    assert observe("n1", transport, CLUSTER, engine=engine).reachable


def test_a_dead_connection_is_unknown(transport: Faulty) -> None:
    """No call raises; the node is unreachable, in words."""
    transport.close()
    state = observe("n1", transport, CLUSTER)
    assert (state.reachable, state.exit_status) == (False, 69)
    assert state.problem


def test_a_too_old_engine_is_refused(engine: Engine, transport: Faulty) -> None:
    """Both versions and what to do."""
    message = b'{"message":"client version 1.41 is too new. Maximum supported API version is 1.39"}'
    transport.answers = [_reply(b"400 Bad Request", b"1.39", message)]
    with pytest.raises(DockerUnavailable) as refused:
        engine.list_containers()
    assert str(refused.value) == (
        "n1: its Docker Engine speaks API 1.39, k4t needs 1.41 or newer; upgrade Docker on the host to 20.10 or newer"
    )


def test_a_newer_engines_minimum_is_adopted(engine: Engine, transport: Faulty) -> None:
    """Engines drop old versions: the call is made again at their oldest, and so is every later one."""
    message = b'{"message":"client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade"}'
    transport.answers = [_reply(b"400 Bad Request", b"1.52", message), *[_reply(b"200 OK", b"1.52", b"[]")] * 2]
    assert engine.list_containers() == engine.list_containers() == []
    versions = [line.split(b"/")[1] for line in transport.requests]
    assert versions == [b"v1.41", b"v1.44", b"v1.44"]


def test_a_full_disk_has_its_own_message(engine: Engine, transport: Faulty) -> None:
    """Whatever call it hits, the remedy is to free space."""
    message = b'{"message":"mkdir /var/lib/docker/overlay2/x: no space left on device"}'
    transport.answers = [_reply(b"500 Internal Server Error", b"1.41", message)]
    with pytest.raises(StepError, match=r"no space left for Docker .* docker system df"):
        engine.list_containers()


def _reply(status: bytes, version: bytes, body: bytes) -> bytes:
    size = str(len(body)).encode()
    return b"HTTP/1.1 %s\r\nApi-Version: %s\r\nContent-Length: %s\r\n\r\n%s" % (status, version, size, body)


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
