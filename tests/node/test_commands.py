"""Create calls as words of the docker program."""

from __future__ import annotations

from typing import Any

import pytest

from k4t.master.manual import ordered
from k4t.master.planning.plan import Pause, Step
from k4t.node import commands

pytestmark = pytest.mark.unit

BODY: dict[str, Any] = {
    "Image": "web@sha256:1",
    "Labels": {"io.k4t.app": "web", "team": "a b"},
    "Env": ["A=1 2", "EMPTY="],
    "StopTimeout": 5,
    "Entrypoint": ["/init", "-x"],
    "Cmd": ["serve", "--all"],
    "HostConfig": {"NetworkMode": "host", "RestartPolicy": {"Name": "unless-stopped"}, "ReadonlyRootfs": True},
}


def words(**host: Any) -> list[str]:
    """The words that something in HostConfig adds."""
    plain = commands.create("n", BODY)
    more = commands.create("n", {**BODY, "HostConfig": {**BODY["HostConfig"], **host}})
    return [word for word in more if word not in plain]


def test_a_create_call_in_the_words_of_docker() -> None:
    """Entrypoint has one word there, the others stand before the command's."""
    assert commands.create("prod.web.0.1", BODY) == [
        *("docker", "create", "--name", "prod.web.0.1", "--label", "io.k4t.app=web", "--label", "team=a b"),
        *("--env", "A=1 2", "--env", "EMPTY=", "--stop-timeout", "5", "--network", "host"),
        *(
            "--restart",
            "unless-stopped",
            "--read-only",
            "--entrypoint",
            "/init",
            "web@sha256:1",
            "-x",
            "serve",
            "--all",
        ),
    ]
    assert commands.unsaid(BODY) == []


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (
            {"Mounts": [{"Type": "bind", "Source": "/a,b", "Target": "/c", "ReadOnly": True}]},
            ["--mount", 'type=bind,target=/c,"source=/a,b",readonly'],
        ),
        (
            {"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 9}}]},
            ["--mount", "type=tmpfs,target=/t,tmpfs-size=9"],
        ),
        (
            {"PortBindings": {"80/tcp": [{"HostIp": "fd00::1", "HostPort": "8080"}]}},
            ["--publish", "[fd00::1]:8080:80/tcp"],
        ),
        ({"CpuPeriod": 100000, "CpuQuota": 50000}, ["--cpu-period", "100000", "--cpu-quota", "50000"]),
        (
            {"LogConfig": {"Type": "local", "Config": {"max-size": "1"}}},
            ["--log-driver", "local", "--log-opt", "max-size=1"],
        ),
        ({"DeviceRequests": [{"Count": -1}]}, ["--gpus", "all"]),
    ],
)
def test_what_stands_in_the_host_config(host: dict[str, Any], said: list[str]) -> None:
    """A comma in a path is quoted as docker's CSV wants it, an IPv6 address has brackets."""
    assert words(**host) == said


def test_what_docker_has_no_word_for_is_named() -> None:
    """As keys of <docker file>; what is empty says nothing."""
    body = {**BODY, "Tty": True, "HostConfig": {**BODY["HostConfig"], "KernelMemoryTCP": 7, "OomScoreAdj": 0}}
    assert commands.unsaid(body) == ["KernelMemoryTCP", "Tty"]


def test_steps_stand_after_what_they_follow() -> None:
    """Else in the plan's order; what is followed and not in the plan is done already."""

    def step(id: str, *after: str, awaits: tuple[str, ...] = ()) -> Step:
        return Step(id, "wait", "", Pause(1), after=after, awaits=awaits)

    steps = (step("c", "b"), step("x"), step("b", "a", "gone"), step("a"), step("p", awaits=("c",)))
    assert [one.id for one in ordered(steps)] == ["x", "a", "b", "c", "p"]
