"""What containers say and use comes as one stream from real nodes; exec and top end as the terminal wants."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.lab import Lab

pytestmark = pytest.mark.integration

CHATTY = """\
  <command><arg>/bin/sh</arg><arg>-c</arg><arg>for i in 1 2 3 4 5; do echo "line $i of $ADDRESS"; sleep 0.05; done;
echo bad news >&amp;2; exec sleep 600</arg></command>"""
TALKING = """\
  <command><arg>/bin/sh</arg><arg>-c</arg><arg>i=0
while :; do i=$((i+1)); echo "tick $i"; sleep 0.2; done</arg></command>"""
QUIET = '  <health interval="500ms"><exec><arg>true</arg></exec></health>'


def until(wanted: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


# --- logs --------------------------------------------------------------------------------------------------


def test_logs_of_all_replicas_are_one_in_order_of_time(site: Site) -> None:
    """Lines of two nodes, each with its replica; as JSON lines sorted by Docker's time, with node and stream."""
    site.app("web", replicas=2, more=CHATTY + QUIET)
    site.k4t("apply", "--yes")
    until(lambda: site.k4t("logs", "web").stdout.count("bad news") == 2)
    shown = site.k4t("logs", "web").stdout.splitlines()
    assert len(shown) == 12
    assert {line.partition("|")[0].strip() for line in shown} == {"web.0", "web.1"}
    rows = [json.loads(line) for line in site.k4t("logs", "-o", "jsonl").stdout.splitlines()]
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert {row["node"] for row in rows} == {"n1", "n2"}
    assert [row["stream"] for row in rows if row["text"] == "bad news"] == ["stderr", "stderr"]
    assert len(site.json("logs", "web")["lines"]) == 12


def test_logs_can_be_narrowed_down(site: Site) -> None:
    """--tail, --grep, --replica, --node and --since each leave out what they should; nonsense is a usage error."""
    site.app("web", replicas=2, more=CHATTY + QUIET)
    site.k4t("apply", "--yes")
    until(lambda: site.k4t("logs", "web").stdout.count("bad news") == 2)
    assert len(site.k4t("logs", "--tail", "2").stdout.splitlines()) == 4
    assert len(site.k4t("logs", "--grep", "line [12] ").stdout.splitlines()) == 4
    assert len(site.k4t("logs", "--replica", "0").stdout.splitlines()) == 6
    assert {line[:5] for line in site.k4t("logs", "--node", "n2").stdout.splitlines()} == {"web.1"}
    assert site.k4t("logs", "--since", "2099-01-01T00:00:00Z").stdout == ""
    assert len(site.k4t("logs", "--since", "10m").stdout.splitlines()) == 12
    assert "no regular expression" in site.k4t("logs", "--grep", "(", status=64).stderr
    assert "there is: web" in site.k4t("logs", "wbe", status=64).stderr
    assert "neither an age" in site.k4t("logs", "--since", "yesterday", status=64).stderr


def test_followed_logs_go_on_also_with_containers_that_come_later(site: Site) -> None:
    """Without a gap or a repetition; Ctrl-C ends it with status 0."""
    site.app("web", replicas=1, more=TALKING + QUIET)
    site.k4t("apply", "--yes")
    follow = site.start("logs", "-f", "-o", "jsonl")
    assert follow.stdout is not None
    seen = [json.loads(follow.stdout.readline()) for _ in range(10)]
    site.app("late", replicas=1, port=8090, more=TALKING + QUIET)
    site.k4t("apply", "--yes", "late")
    while not any(row["app"] == "late" for row in seen):
        seen.append(json.loads(follow.stdout.readline()))
    ticks = [int(row["text"].split()[1]) for row in seen if row["app"] == "web"]
    assert ticks == list(range(1, len(ticks) + 1))
    follow.send_signal(signal.SIGINT)
    _, said = follow.communicate(timeout=60)
    assert (follow.returncode, said) == (0, "")


def test_logs_name_the_node_that_cannot_be_asked(site: Site, lab: Lab) -> None:
    """What the others have is shown; exit 3."""
    site.app("web", replicas=2, more=CHATTY + QUIET)
    site.k4t("apply", "--yes")
    lab.host("n2").stop_docker()
    try:
        done = site.k4t("logs", "web", status=3)
    finally:
        lab.host("n2").start_docker()
    assert "n2" in done.stderr
    assert {line[:5] for line in done.stdout.splitlines()} == {"web.0"}


def test_a_long_log_takes_no_memory(site: Site) -> None:
    """15 MB of two replicas, merged whole, in order: the program stays below 150 MB."""
    script = 'seq 1 100000 | sed "s/$/ and so on and so forth, until it is long enough/"; sleep 600'
    flood = f"<command><arg>/bin/sh</arg><arg>-c</arg><arg>{script}</arg></command>"
    site.app("web", replicas=2, more=flood + QUIET)
    site.k4t("apply", "--yes")
    until(lambda: site.k4t("logs", "--tail", "1").stdout.count("100000 and") == 2, timeout_s=60)
    count, last, peak_kib = 0, "", 0
    with site.start("logs", "--since", "1h", "-o", "jsonl") as process:
        assert process.stdout is not None
        for line in process.stdout:
            at = line[7:37]
            assert at >= last
            count, last = count + 1, at
            # Not rusage: that would count the test's own memory, before exec. Not at the last line: it may have ended.
            if count % 10_000 == 5_000:
                peak_kib = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0])
    assert count == 200_000
    assert peak_kib < 150_000


# --- exec --------------------------------------------------------------------------------------------------


def test_exec_gives_the_commands_output_input_and_exit_status(site: Site) -> None:
    """Both streams apart, standard input to its end, the command's own status."""
    site.app("web", replicas=2)
    site.k4t("apply", "--yes")
    done = site.k4t("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    piped = subprocess.run(
        site.argv("exec", "web", "-i", "--replica", "1", "--", "cat"), env=site.environment(), input=b"x" * 300_000,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert piped.stdout == b"x" * 300_000
    assert "there is: web" in site.k4t("exec", "nope", "--", "true", status=64).stderr


def test_exec_in_all_replicas_marks_the_output(site: Site) -> None:
    """Each line with its replica; 1 and a name when one of them fails."""
    site.app("web", replicas=2)
    site.k4t("apply", "--yes")
    done = site.k4t("exec", "web", "--all", "--", "sh", "-c", "echo $ADDRESS; echo more")
    assert sorted({line.partition(" | ")[0] for line in done.stdout.splitlines()}) == ["web.0", "web.1"]
    assert len(done.stdout.splitlines()) == 4
    failed = site.k4t("exec", "web", "--all", "--", "sh", "-c", "case $(hostname) in n2*) exit 5;; esac", status=1)
    assert "web.1 on n2: exit status 5" in failed.stderr


def test_exec_with_a_terminal(site: Site) -> None:
    """The command has a terminal of our size, follows its changes, reads keys raw; its status is ours."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    sized = 'while [ "$(stty size)" != "%s" ]; do sleep 0.1; done; echo is %s'
    steps = (
        sized % ("33 101", "33"),
        sized % ("44 120", "44"),
        "sleep 1000; echo woke",
        "read b; echo back-$b; exit 9",
    )
    child, terminal = pty.fork()
    if child == 0:
        argv = site.argv("exec", "web", "-it", "--", "sh", "-c", f"trap : INT; {'; '.join(steps)}")
        os.execve(argv[0], argv, site.environment({"TERM": "xterm", "LINES": "", "COLUMNS": ""}))  # noqa: S606
    _resize(terminal, 33, 101)
    assert "is 33" in _read_until(terminal, "is 33")
    _resize(terminal, 44, 120)
    os.kill(child, signal.SIGWINCH)
    assert "is 44" in _read_until(terminal, "is 44")
    said = ""
    for _ in range(10):  # once is enough, unless it comes before the sleep has begun
        os.write(terminal, b"\x03")  # Ctrl-C is the command's: it ends the sleep, not us
        if "woke" in (said := said + _read_until(terminal, "woke", timeout_s=3)):
            break
    os.write(terminal, b"42\n")
    assert "back-42" in _read_until(terminal, "back-42")
    _drain(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _resize(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _read_until(terminal: int, text: str, timeout_s: float = 60) -> str:
    said = ""
    deadline = time.monotonic() + timeout_s
    while text not in said and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            said += os.read(terminal, 4096).decode("utf-8", "replace")
    return said


def _drain(terminal: int) -> str:
    """Everything until the other side is gone."""
    said = b""
    try:
        while data := os.read(terminal, 4096):
            said += data
    except OSError:
        pass
    return said.decode("utf-8", "replace")


def _on_terminal(site: Site, *words: str) -> tuple[int, int]:
    """The program on a terminal of its own, with colour: its process and the terminal."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {**site.environment({"TERM": "xterm"})}
        del environment["NO_COLOR"]
        os.execve(sys.executable, site.argv(*words), environment)  # noqa: S606
    _resize(terminal, 40, 140)
    return child, terminal


@pytest.mark.parametrize(("words", "shown"), [(("top",), "web.1"), (("status", "--watch"), "web")])
def test_what_is_live_on_a_terminal_ends_with_ctrl_c(site: Site, words: tuple[str, ...], shown: str) -> None:
    """It is drawn again and again; Ctrl-C is how it ends, with status 0 and no complaint."""
    site.app("web", replicas=2)
    site.k4t("apply", "--yes")
    child, terminal = _on_terminal(site, *words)
    assert shown in _read_until(terminal, shown)
    os.write(terminal, b"\x03")
    said = _drain(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "Traceback" not in said
    assert "interrupted" not in said


def test_logs_have_a_colour_for_each_replica_on_a_terminal(site: Site) -> None:
    """And none where nobody sees it."""
    site.app("web", replicas=2, more=CHATTY + QUIET)
    site.k4t("apply", "--yes")
    child, terminal = _on_terminal(site, "logs", "--grep", "line 1")
    said = _drain(terminal)
    os.waitpid(child, 0)
    assert {"\x1b[36mweb.0 |\x1b[0m", "\x1b[33mweb.1 |\x1b[0m"} == set(re.findall("\x1b.*?0m", said))
    assert "\x1b" not in site.k4t("logs").stdout


# --- top ---------------------------------------------------------------------------------------------------


def test_top_shows_what_each_container_uses(site: Site) -> None:
    """A busy one keeps about a processor busy, an idle one none; memory within its limit."""
    busy = "  <command><arg>/bin/sh</arg><arg>-c</arg><arg>while :; do :; done</arg></command>"
    site.app("busy", port=8081, more=busy + '<resources cpus="0.5" memory="64MiB"/>' + QUIET)
    site.app("idle", port=8082)
    site.k4t("apply", "--yes")
    found = {one["app"]: one for one in site.json("top")["containers"]}
    assert 0.05 < found["busy"]["cpus"] < 0.8  # half a processor, where nobody else wants it
    assert found["idle"]["cpus"] < 0.05
    assert 0 < found["busy"]["memory_bytes"] < 64 << 20 == found["busy"]["memory_limit_bytes"]
    assert "idle.0" in site.k4t("top", "idle").stdout


def test_logs_and_exec_through_sudo(site: Site, lab: Lab) -> None:
    """Where the login needs sudo for Docker, streams go through a command instead of the socket; all is the same."""
    host = lab.host("n1")
    host.exec(["useradd", "-m", "-s", "/bin/sh", "looker"])
    host.exec(["install", "-d", "-o", "looker", "-m", "700", "/home/looker/.ssh"])
    keys = lab.key.with_suffix(".pub").read_text()
    host.exec(["sh", "-c", "cat > /home/looker/.ssh/authorized_keys"], input=keys)
    host.exec(["sh", "-c", "echo 'looker ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/looker"])
    (site.db / "nodes/n2.xml").unlink()
    site.node(host, inside='<ssh user="looker" sudo="true"/>')
    site.app("web", replicas=1, more=CHATTY + QUIET)
    site.k4t("apply", "--yes")
    until(lambda: "bad news" in site.k4t("logs", "web").stdout)
    piped = subprocess.run(
        site.argv("exec", "web", "-i", "--", "cat"), env=site.environment(), input=b"y" * 100_000,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert piped.stdout == b"y" * 100_000
    assert site.k4t("exec", "web", "--", "sh", "-c", "exit 4", status=4).stdout == ""
