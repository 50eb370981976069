"""The create call, whole, for every group of app.xml's elements. K4T_GOLDEN=write writes the golden files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from k4t.errors import StepError
from k4t.model.app import (
    App,
    ContainerSettings,
    Env,
    ExecProbe,
    File,
    Health,
    HttpProbe,
    Image,
    ImageProbe,
    Log,
    Network,
    Port,
    Resources,
    Stop,
    TcpProbe,
    Volume,
)
from k4t.model.shared import Where
from k4t.node.body import Given, body, in_place

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent / "golden"
WHERE = Where("apps/web/app.xml", 1)
IMAGE = "reg.example:5000/web@sha256:" + "a" * 64
LABELS = {"io.k4t.format": "1", "io.k4t.cluster": "k7f3q2m9"}
ADDRESS = "10.88.0.11"
MIB = 1024 * 1024


def app(**settings: Any) -> App:
    return App("web", Image("reg.example:5000/web:1"), where=WHERE, **settings)


def given(**settings: Any) -> Given:
    return Given(LABELS, **{"address": ADDRESS, **settings})


TWO_PORTS = (Port("main", container=8080, host="auto"), Port("dns-in", container=53, host=5353, protocol="udp"))
CASES: dict[str, tuple[App, Given]] = {
    "plain": (app(), given()),
    "command": (app(entrypoint=("/bin/tini", "--"), command=("serve", "--port", "80")), given()),
    "container": (
        app(
            container=ContainerSettings(
                user="1000:1000",
                workdir="/srv",
                restart="on-failure",
                read_only=True,
                init=True,
                cap_add=("NET_ADMIN",),
                cap_drop=("ALL",),
            )
        ),
        given(),
    ),
    "host-told": (
        app(ports=(Port("main", host="auto"), Port("admin-api", host=9000)), env=(Env("PORT", "1"),)),
        given(ports={"main": 20000, "admin-api": 9000}),
    ),
    "host-by-itself": (app(ports=(Port("main", container=80),)), given(ports={"main": 80})),
    "bridge": (app(network=Network("bridge"), ports=TWO_PORTS), given(ports={"main": 20000, "dns-in": 5353})),
    "bridge-both-families": (
        app(network=Network("bridge"), ports=TWO_PORTS),
        given(ports={"main": 20000, "dns-in": 5353}, address6="fd88::11"),
    ),
    "macvlan": (
        app(network=Network("macvlan", ("10.0.0.53",)), ports=(Port("main", container=8080),)),
        given(ports={"main": 8080}, address="10.88.0.100", network="k4t-macvlan-eth0-10.88.0.0-24"),
    ),
    "ipvlan-v6": (
        app(network=Network("ipvlan"), ports=(Port("main", container=8080),)),
        given(ports={"main": 8080}, address="fd88::100", network="k4t-ipvlan-eth0-fd88---64"),
    ),
    "none": (app(network=Network("none")), given(address="")),
    "resolvers": (app(network=Network("bridge", ("10.0.0.53",), ("k4t.lab", "lab"))), given()),
    "env-and-labels": (
        app(
            env=(Env("GREETING", "a b=c"), Env("PASSWORD", secret="db"), Env("ADDRESS", "mine")),
            labels=(("team", "red"),),
        ),
        given(secrets={"db": "s3cret"}),
    ),
    "files": (
        app(files=(File("/etc/web.conf", source="web.conf"), File("/run/key", secret="key", mode=0o400, owner="1:1"))),
        given(files={"/etc/web.conf": "/var/lib/k4t/k/files/1", "/run/key": "/var/lib/k4t/k/files/2"}),
    ),
    "volumes": (
        app(
            volumes=(
                Volume("/data", path="/srv/data", owner="5:5"),
                Volume("/ro", path="/etc/ssl", read_only=True),
                Volume("/db", name="db"),
                Volume("/tmp", tmpfs_bytes=64 * MIB),
                Volume("/run", tmpfs_bytes=MIB, owner="1000"),
            )
        ),
        given(),
    ),
    "resources": (
        app(resources=Resources(cpus=1.5, memory_bytes=256 * MIB, shm_bytes=128 * MIB, pids=100, gpus="all")),
        given(),
    ),
    "gpu-devices": (app(resources=Resources(gpus="GPU-1, GPU-2")), given()),
    "gpu-count": (app(resources=Resources(gpus="2")), given()),
    "health-http": (app(ports=(Port(container=80),), health=Health(HttpProbe())), given(ports={"main": 80})),
    "health-tcp": (app(ports=(Port(container=80),), health=Health(TcpProbe())), given(ports={"main": 80})),
    "health-exec": (app(health=Health(ExecProbe(("pg_isready", "-q")), 10.0, 1.5, 5, 60.0)), given()),
    "health-image": (app(health=Health(ImageProbe())), given()),
    "log-one-file": (app(log=Log("local", 20 * MIB, 1)), given()),
    "log-elsewhere": (app(log=Log("journald")), given()),
    "stop": (app(stop=Stop("SIGQUIT", 12.4)), given()),
    "docker-extra": (
        app(
            docker_file="extra.json",
            docker_extra={"Hostname": "web", "HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": 9}]}},
        ),
        given(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_create_call_is_what_it_was(name: str) -> None:
    """What Docker is told for this app, whole, as it was when the golden file was written."""
    made = json.dumps(body(CASES[name][0], IMAGE, CASES[name][1]), indent=2, sort_keys=True) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("K4T_GOLDEN") == "write":
        path.write_text(made)
    assert made == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    """Every golden file has its case."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CASES)


@pytest.mark.parametrize("mode", ["macvlan", "ipvlan"])
def test_an_address_of_its_own_has_to_be_chosen_first(mode: Any) -> None:
    """Docker is never left to choose one by itself."""
    with pytest.raises(StepError, match=rf"apps/web/app.xml:1: <network mode=\"{mode}\">: no address was chosen"):
        body(app(network=Network(mode)), IMAGE, given())


@pytest.mark.parametrize(
    ("extra", "key", "element"),
    [
        ({"Image": "x"}, "Image", "<image>"),
        ({"labels": {}}, "Labels", "<label>"),
        ({"HostConfig": {"Memory": 1}}, "HostConfig.Memory", "<resources memory>"),
        ({"hostconfig": {"PORTBINDINGS": {}}}, "HostConfig.PortBindings", "<port>"),
        ({"HostConfig": {"AutoRemove": True}}, "HostConfig.AutoRemove", "<container restart>"),
    ],
)
def test_what_k4t_owns_is_refused(extra: dict[str, Any], key: str, element: str) -> None:
    """In any case of letters, since the Engine reads them so; the message names the element to use."""
    with pytest.raises(StepError) as refused:
        body(app(docker_file="extra.json", docker_extra=extra), IMAGE, given())
    assert str(refused.value) == f"apps/web/extra.json: {key} is k4t's own; use {element} of app.xml for it"


def test_bridge_ports_need_an_address() -> None:
    """Nothing is ever published on all addresses."""
    with pytest.raises(StepError, match="no address to publish"):
        body(app(network=Network("bridge"), ports=TWO_PORTS), IMAGE, given(address="", ports={"main": 1, "dns-in": 2}))


def test_a_secret_without_value_is_named() -> None:
    """Neither empty nor silently left out."""
    with pytest.raises(StepError, match="wants the secret db, which has no value"):
        body(app(env=(Env("PASSWORD", secret="db"),)), IMAGE, given())


def test_resizing_sets_and_lifts_limits() -> None:
    """All that changes in place is in one update call; what has no limit any more is lifted."""
    limited = in_place(app(resources=Resources(cpus=0.25, memory_bytes=64 * MIB, pids=50)))
    assert limited == {
        "CpuPeriod": 100_000,
        "CpuQuota": 25_000,
        "Memory": 64 * MIB,
        "MemorySwap": 64 * MIB,
        "PidsLimit": 50,
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
    }
    lifted = in_place(app())
    assert (lifted["CpuQuota"], lifted["Memory"], lifted["MemorySwap"]) == (-1, 1 << 62, 1 << 62)
