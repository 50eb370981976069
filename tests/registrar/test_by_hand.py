"""The registrar's door for people, nodes and the monitor: what a restricted key may, and what nobody may."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from k4t.registrar.__main__ import main
from tests.registrar.hands import A, B, document, envoy

pytestmark = pytest.mark.unit
ENTRY = "--cname web --ip 10.0.0.9 --port 80"
LIVE = "--cname web --ip 10.0.0.1 --port 80"
KEY = ["--cluster", A, "--verbs", "add,remove,withdraw,restore,list", "forced"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gateway that both clusters publish web in: A at 10.0.0.1, B at 10.0.0.2."""
    monkeypatch.setenv("K4T_REGISTRAR_ROOT", str(tmp_path))
    door = envoy(tmp_path)
    door.publish(document(A))
    door.publish(document(B, ip="10.0.0.2"), "t2")
    return tmp_path


def forced(monkeypatch: pytest.MonkeyPatch, command: str, key: list[str] | None = None) -> int:
    """The exit status of what sshd would run for this key and this command."""
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", command)
    try:
        return main(key or KEY)
    except SystemExit as end:
        return int(end.code or 0)


def served(host: Path) -> str:
    return (host / "var/lib/k4t/envoy/eds/web.main.json").read_text()


def test_a_restricted_key_withdraws_and_restores_its_own(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The endpoint goes at once and comes back; who took it out, and why, is listed meanwhile."""
    forced(monkeypatch, f"k4t-registrar withdraw {LIVE} --why 'its node is dead'")
    assert "10.0.0.1" not in served(host)
    capsys.readouterr()
    forced(monkeypatch, "list")
    assert "its node is dead" in capsys.readouterr().out
    forced(monkeypatch, f"restore {LIVE}")
    assert "10.0.0.1" in served(host)


def test_a_restricted_key_touches_nothing_of_another_cluster(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not its endpoints, not what it or root added by hand."""
    before = served(host)
    assert forced(monkeypatch, f"withdraw {LIVE.replace('.1 ', '.2 ')}") == 1
    assert f"cluster {A} publishes no web 10.0.0.2:80" in capsys.readouterr().err
    assert served(host) == before
    main(["add", *ENTRY.split()])
    assert forced(monkeypatch, f"remove {ENTRY}") == 1
    assert f"was not added by cluster {A}" in capsys.readouterr().err
    assert "10.0.0.9" in served(host)


def test_a_key_adds_and_removes_its_own_entries(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a node, as the original scripts were called."""
    forced(monkeypatch, f"k4t-registrar add {ENTRY}")
    assert "10.0.0.9" in served(host)
    assert forced(monkeypatch, f"add {ENTRY}", ["--cluster", B, "--verbs", "add", "forced"]) == 1
    forced(monkeypatch, f"remove {ENTRY}")
    assert "10.0.0.9" not in served(host)


@pytest.mark.parametrize(
    "command",
    [
        f"--cluster {B} withdraw {LIVE}",
        f"withdraw {LIVE} --cluster {B}",
        "check",
        "rpc",
        "forced",
        "",
        "add 'unbalanced",
        "rm -rf /",
        f"withdraw {LIVE}; reboot",
        f"--driver ../envoy withdraw {LIVE}",
        f"--driver bin withdraw {LIVE}",
        f"--driver haproxy withdraw {LIVE}",
        f"withdraw {LIVE} --by root",
        f"withdraw {LIVE} --verbs rpc",
        f"withdraw {LIVE}\nreboot",
        f"withdraw {LIVE} --why {'x' * 9000}",
        "list --many",
    ],
)
def test_the_message_decides_neither_cluster_nor_verb(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Whatever is not one allowed call with its own options is a usage error of one line, and changes nothing."""
    before = served(host)
    assert forced(monkeypatch, command) == 64
    assert capsys.readouterr().err.count("\n") == 1
    assert served(host) == before


def test_a_restricted_key_sets_nothing_up(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`install` names the program that root runs: only a whole login may."""
    door = envoy(host, binary="/bin/true")
    door.service.only = A
    kind, words = door.error(op="install", cluster=A, config={"binary": "/tmp/evil"})
    assert kind == "bad-request"
    assert "may not change how the host is set up" in words


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "we b", 'w"eb', "w'eb", "web\nevil", "w" * 300, "", "-web", "WEB", "wéb"],
)
@pytest.mark.parametrize("verb", ["add", "remove", "withdraw", "restore"])
def test_hostile_names_stay_outside(host: Path, capsys: pytest.CaptureFixture[str], name: str, verb: str) -> None:
    """Path-like, quoted, broken over lines, endless: refused in one line, and nothing has changed."""
    before = {path: path.read_bytes() for path in host.rglob("*") if path.is_file()}
    try:
        status = main([verb, f"--cname={name}", "--ip=10.0.0.9", "--port=80"])
    except SystemExit as end:
        status = int(end.code or 0)
    assert status in (1, 64)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) < 300
    assert {path: path.read_bytes() for path in host.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("option", "value"), [("ip", "10.0.0"), ("ip", "::g"), ("port", "70000"), ("port", "-1")])
def test_no_address(host: Path, option: str, value: str) -> None:
    """An address that is none, a port that can't be."""
    words = {"cname": "web", "ip": "10.0.0.9", "port": "80", option: value}
    assert main(["add", *(f"--{key}={text}" for key, text in words.items())]) == 1


def test_a_reason_is_one_line(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is shown to people can't move their cursor."""
    assert main(["withdraw", *LIVE.split(), "--why", "bad\x1b[2J"]) == 1
    assert "why must be one line" in capsys.readouterr().err


def test_a_withdrawal_twice_is_one(host: Path) -> None:
    """Said again, it stays as it was said first."""
    main(["withdraw", *LIVE.split(), "--why", "first"])
    main(["withdraw", *LIVE.split(), "--why", "second"])
    kept = json.loads((host / "var/lib/k4t/registrar/envoy/withdrawals.json").read_text())["withdrawals"]
    assert [row["why"] for row in kept] == ["first"]


def asked(monkeypatch: pytest.MonkeyPatch, command: str, lines: str | bytes, key: list[str] | None = None) -> int:
    """`forced`, with something on standard input."""
    data = lines if isinstance(lines, bytes) else lines.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return forced(monkeypatch, command, key or ["--cluster", A, "--verbs", "withdraw,restore", "--by", "mon", "forced"])


def test_many_endpoints_are_taken_out_at_once(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One call, one answer for a program: what changed, and what could not be done. Again, it changes nothing."""
    lines = "web 10.0.0.1 80\nweb 10.0.0.2 80\nweb 10.0.0.7 80\n"
    command = "k4t-registrar --driver envoy withdraw --many --why='n1 is off'"
    assert asked(monkeypatch, command, lines) == 0
    found = json.loads(capsys.readouterr().out)["ok"]
    assert (found["changed"], found["left"]) == (
        1, [f"cluster {A} publishes no web 10.0.0.2:80", f"cluster {A} publishes no web 10.0.0.7:80"],
    )  # fmt: skip
    assert "10.0.0.1" not in served(host)
    assert "10.0.0.2" in served(host)
    assert asked(monkeypatch, command, lines) == 0
    assert json.loads(capsys.readouterr().out)["ok"]["changed"] == 0
    main(["list"])
    assert "withdrawn        10.0.0.1:80 of cluster aaaa1111 by mon: n1 is off" in capsys.readouterr().out
    assert asked(monkeypatch, "restore --many", lines) == 0
    assert json.loads(capsys.readouterr().out)["ok"]["changed"] == 1
    assert "10.0.0.1" in served(host)


def test_what_a_person_took_out_a_person_puts_back(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restricted key gives back only what it took out itself, one by one and many at once."""
    main(["withdraw", *LIVE.split(), "--why", "by hand"])
    capsys.readouterr()
    assert asked(monkeypatch, f"restore {LIVE}", "") == 1
    assert "web 10.0.0.1:80 was withdrawn by" in capsys.readouterr().err
    assert asked(monkeypatch, "restore --many", "web 10.0.0.1 80\n") == 0
    found = json.loads(capsys.readouterr().out)["ok"]
    assert found["changed"] == 0
    assert "not by mon" in found["left"][0]
    assert "10.0.0.1" not in served(host)
    main(["restore", *LIVE.split()])
    assert "10.0.0.1" in served(host)


@pytest.mark.parametrize(
    "lines",
    [
        "web 10.0.0.1", "web 10.0.0.1 80 x", "web 10.0.0.1 -1", "web 10.0.0.1 \u0663", "web 10.0.0.1 999999",
        b"\xff\xfe \x00 80", "web 10.0.0.1 80\n" * 100_000,
    ],
)  # fmt: skip
def test_many_lines_of_anything_else_are_refused(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: str | bytes
) -> None:
    """In one line, or as the answer's error; nothing is taken out."""
    before = served(host)
    assert asked(monkeypatch, "withdraw --many", lines) in (1, 64)
    assert sum(text.count("\n") for text in capsys.readouterr()) == 1
    assert served(host) == before
