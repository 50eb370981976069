"""Looking at what runs, on real nodes: logs, exec, top, events, explain, prune, saved plans, plans as commands."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Lab

pytestmark = pytest.mark.integration

CHATTY = """\
  <command><arg>/bin/sh</arg><arg>-c</arg><arg>for i in 1 2 3 4 5; do echo "line $i of $ADDRESS"; sleep 0.05; done;
echo bad news >&amp;2; exec sleep 600</arg></command>"""
TALKING = """\
  <command><arg>/bin/sh</arg><arg>-c</arg><arg>i=0
while :; do i=$((i+1)); echo "tick $i"; sleep 0.2; done</arg></command>"""
QUICK = """\
  <command><arg>/bin/sleep</arg><arg>600</arg></command>
  <health interval="1s"><exec><arg>true</arg></exec></health>
  <update max-unavailable="100%" drain="0s"/>
  <stop grace="1s"/>
"""
QUIET = "  <health><exec><arg>true</arg></exec></health>"


def until(wanted: Callable[[], bool], timeout_s: float = 20) -> None:
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
    _, said = follow.communicate(timeout=20)
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
            if count % 10_000 == 0:  # not rusage: that would count the test's own memory, before exec
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
    script = "tty; sleep 1; stty size; read a; stty size; sleep 100; read b; echo back-$b; exit 9"
    child, terminal = pty.fork()
    if child == 0:
        argv = site.argv("exec", "web", "-it", "--", "sh", "-c", f"trap : INT; {script}")
        os.execve(argv[0], argv, site.environment({"TERM": "xterm", "LINES": "", "COLUMNS": ""}))  # noqa: S606
    _resize(terminal, 33, 101)
    assert "33 101" in _read_until(terminal, "33 101")
    _resize(terminal, 44, 120)
    os.kill(child, signal.SIGWINCH)
    time.sleep(1)
    os.write(terminal, b"go\n")
    assert "44 120" in _read_until(terminal, "44 120")
    time.sleep(0.5)
    os.write(terminal, b"\x03")  # Ctrl-C is the command's: it ends the sleep, not us
    time.sleep(0.5)
    os.write(terminal, b"42\n")
    assert "back-42" in _read_until(terminal, "back-42")
    _drain(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _resize(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _read_until(terminal: int, text: str, timeout_s: float = 20) -> str:
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
    assert 0.2 < found["busy"]["cpus"] < 0.8
    assert found["idle"]["cpus"] < 0.2
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


# --- events, audit -----------------------------------------------------------------------------------------


def test_events_tell_applies_and_what_docker_saw(site: Site, lab: Lab, tmp_path: Path) -> None:
    """In order of time: the apply with its message, also from another working copy; create, start, and a death."""
    site.app("web", replicas=1, more='  <container restart="no"/>')
    site.k4t("apply", "--yes", "-m", "first of all")
    lab.host("n1").docker(["kill", "prod.web.0.1"])
    found = site.json("events")["events"]
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)
    assert any(one["source"] == "apply" and "first of all" in one["what"] for one in found)
    seen = [one["what"] for one in found if one["subject"] == "prod.web.0.1"]
    assert seen[:2] == ["create", "start"]
    assert "die exit status 137" in seen
    assert len(site.k4t("events", "-n", "2").stdout.splitlines()) == 3
    (tmp_path / "clone").mkdir()
    assert "first of all" in site.copy(tmp_path / "clone").k4t("events").stdout
    assert site.json("events", "--since", "2099-01-01T00:00:00Z")["events"] == []


def test_the_audit_log_is_shown_and_a_changed_line_is_found(site: Site) -> None:
    """One line an apply; verify is content until someone edits the file, and then names the line after it."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes", "-m", "one")
    site.app("web", replicas=2)
    site.k4t("apply", "--yes", "-m", "two")
    assert [entry["message"] for entry in site.json("audit")["entries"]] == ["one", "two"]
    assert "two" in site.k4t("audit").stdout
    assert "2 lines" in site.k4t("audit", "verify").stdout
    log = site.db / ".k4t" / "audit.jsonl"
    log.write_text(log.read_text().replace('"one"', '"won"'))
    assert f"{log}:2:" in site.k4t("audit", "verify", status=1).stderr


# --- prune -------------------------------------------------------------------------------------------------


def test_prune_takes_old_images_and_leftovers_and_nothing_of_strangers(site: Site, lab: Lab) -> None:
    """Shown first; what runs, the newest of each repository, and what is not ours stay. A second one finds nothing."""
    host = lab.host("n1")
    repository = lab.image.rpartition(":")[0]
    (site.db / "nodes/n2.xml").unlink()
    for version in range(1, 6):
        image = lab.push(f"prune{version}", VER=f"old{version}")
        site.write("apps/web/app.xml", f"<app>\n  <image>{image}</image>\n{QUICK}</app>\n")
        site.k4t("apply", "--yes")
    host.docker(["tag", f"{repository}:prune1", "stranger/tiny:1"])
    host.docker(["tag", f"{repository}:prune1", f"{repository}-other:1"])
    host.docker(["create", "--name", "stranger", f"{repository}:prune2", "/run"])
    _stopped_copy(site, lab)
    refused = site.k4t("prune", status=64)
    assert "--yes" in refused.stderr
    assert f"{repository}:prune3" in refused.stdout
    assert "prod.web.0.1" in refused.stdout
    site.k4t("prune", "--yes", "--keep", "2")
    left = set(host.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split())
    assert {f"{repository}:prune{n}" for n in (1, 2, 5)} <= left  # another's name on it, in use, current
    assert {"stranger/tiny:1", f"{repository}-other:1"} <= left
    assert f"{repository}:prune3" not in left
    assert containers(host) == ["prod.web.0.5", "stranger"]
    assert site.k4t("prune", "--keep", "2").stdout == "Nothing to prune.\n"
    host.docker(["rmi", "stranger/tiny:1", f"{repository}-other:1"])


def _stopped_copy(site: Site, lab: Lab) -> None:
    """A container of an older generation, as an interrupted update leaves it behind."""
    host = lab.host("n1")
    found = json.loads(host.docker(["inspect", "prod.web.0.5"]).stdout)[0]["Config"]["Labels"]
    labels = {**found, "io.k4t.generation": "1", "io.k4t.ports": "{}"}
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    host.docker(["create", "--name", "prod.web.0.1", *words, f"{lab.registry}/tiny:prune5"])


# --- saved plans -------------------------------------------------------------------------------------------


def test_a_saved_plan_is_carried_out_as_it_was(site: Site, lab: Lab, tmp_path: Path) -> None:
    """plan --save, then apply FILE does it; a second time there is nothing of it left to do, which is refused."""
    file = tmp_path / "web.plan"
    site.app("web", replicas=2)
    site.k4t("plan", "--save", str(file))
    assert site.json("apply", str(file), "--yes")["result"] == "done"
    assert containers(lab.host("n2")) == ["prod.web.1.1"]
    assert "nothing to do now" in site.k4t("apply", str(file), "--yes", status=4).stderr


def test_a_saved_plan_is_refused_when_tree_or_world_moved_on(site: Site, lab: Lab, tmp_path: Path) -> None:
    """Exit 4, nothing is done, and the message says which of them and what is different."""
    file = tmp_path / "p.json"
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    site.app("web", replicas=2)
    site.k4t("plan", "--save", str(file))
    site.app("web", replicas=3)
    assert "the tree has moved on" in site.k4t("apply", str(file), "--yes", status=4).stderr
    site.app("web", replicas=2)
    lab.host("n1").docker(["rm", "-f", "prod.web.0.1"])
    moved = site.k4t("apply", str(file), "--yes", status=4).stderr
    assert "the world has moved on" in moved
    assert "new: pull" in moved
    assert "@n1" in moved
    assert containers(lab.host("n2")) == []
    assert "is no plan file" in site.k4t("apply", str(site.db / "cluster.xml"), status=64).stderr


# --- explain -----------------------------------------------------------------------------------------------


def test_explain_tells_why_an_app_is_where_and_how_it_is(published: Site, lab: Lab) -> None:
    """Why it stays and where it is published; of a sick replica the probe's answer, of one too many the reasons."""
    more = '<health interval="1s"><http port="http" path="/healthz"/></health><route port="http" domain="w.k4t.lab"/>'
    published.app("web", replicas=2, more=more)
    published.k4t("apply", "--yes")
    well = published.json("explain", "web")
    assert (well["wanted"], well["running"], well["healthy"]) == (2, 2, 2)
    assert [one["published"] for one in well["replicas"]] == [["gateway/default"], ["gateway/default"]]
    assert well["replicas"][0]["why"] == "runs there already, and may stay"
    assert well["steps"] == []
    published.k4t("exec", "web", "--replica", "1", "--", "rm", "/www/healthz")
    published.app("web", replicas=3, more=more)
    said = published.k4t("explain", "web").stdout
    assert "answers 404" in said
    assert "web.2" in said
    assert "n1: port tcp/8080" in said or "port 8080" in said
    assert "fits nowhere" in said
    assert "another node" in said
    assert "nope" in published.k4t("explain", "nope", status=64).stderr


def test_explain_shows_the_end_of_a_crash(site: Site) -> None:
    """Exit status, restarts, the tail of the log, and the command that shows more."""
    crash = "  <command><arg>/bin/sh</arg><arg>-c</arg><arg>echo no config; sleep 0.2; exit 3</arg></command>"
    site.app("web", replicas=1, more=crash)
    site.k4t("apply", "--yes", status=1)
    found = site.json("explain", "web")
    one = found["replicas"][0]
    assert one["insides"]["exit_code"] == 3
    assert "no config" in one["insides"]["log"]
    assert any("exit status 3" in sentence for sentence in found["helps"])
    assert "no config" in site.k4t("explain", "web").stdout


def test_explain_says_what_is_held(site: Site, lab: Lab) -> None:
    """A version that did not get healthy was taken back: the old one serves, and the two ways on are named."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    site.app("web", replicas=1, image=lab.push("sick", FAIL=1))
    site.k4t("apply", "--yes", status=None)
    found = site.json("explain", "web")
    assert found["held"].startswith("v1:")
    assert (found["running"], found["healthy"]) == (1, 1)
    assert any("--retry" in sentence for sentence in found["helps"])
    assert "is held" in site.k4t("explain", "web").stdout


# --- a plan as commands ------------------------------------------------------------------------------------

BY_HAND = """\
  <network mode="bridge"/>
  <port name="http" container="8080" host="auto"/>
  <port name="admin" container="8081" host="auto"/>
  <env name="HARD">it's "quoted" $HOME `x` \\ and ü; done</env>
  <label name="team">a b</label>
  <file source="page's.html" target="/www/page.html"/>
  <volume source="/srv/by hand" target="/data" owner="1000:1000"/>
  <volume source="tmpfs:1MiB" target="/scratch"/>
  <resources cpus="0.5" memory="64MiB"/>
  <health interval="1s"><exec><arg>sh</arg><arg>-c</arg><arg>test "$HARD"</arg></exec></health>
  <stop grace="1s"/>"""


def test_a_plan_printed_as_commands_does_what_k4t_would(site: Site, lab: Lab) -> None:
    """bash runs the lines; then plan finds nothing to do, and a change printed so is carried out as well."""
    shutil.copy(lab.known_hosts, site.db / "known_hosts")
    (site.db / "apps/web").mkdir()
    (site.db / "apps/web/page's.html").write_text("by hand\n")
    _by_hand(site, lab.image)
    _bash(site.k4t("plan", "--commands").stdout)
    assert site.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")
    found = json.loads(lab.host("n1").docker(["inspect", "prod.web.0.1"]).stdout)[0]
    assert 'HARD=it\'s "quoted" $HOME `x` \\ and ü; done' in found["Config"]["Env"]
    assert found["HostConfig"]["CpuQuota"] == 50_000
    ports = json.loads(found["Config"]["Labels"]["io.k4t.ports"])
    assert len(set(ports.values())) == 2
    assert lab.host("n1").docker(["exec", "prod.web.0.1", "cat", "/www/page.html"]).stdout == "by hand\n"
    assert lab.host("n1").exec(["stat", "-c", "%u", "/srv/by hand"]).stdout == "1000\n"
    _by_hand(site, lab.push("hand2", VER="hand2"))
    printed = site.k4t("plan", "--commands").stdout
    assert "docker rm" in printed
    _bash(printed)
    assert containers(lab.host("n1")) == ["prod.web.0.2"]
    assert site.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")


def _by_hand(site: Site, image: str) -> None:
    site.write("apps/web/app.xml", f'<app replicas="2">\n  <image>{image}</image>\n{BY_HAND}\n</app>\n')


def _bash(lines: str) -> None:
    done = subprocess.run(["bash", "-s"], input=lines, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{lines}"
