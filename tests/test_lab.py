"""The lab keeps its own promises: hosts are real and separate, faults are silent, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Host, Lab, LabError

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(name="lab-test", nodes=2, gateways=1, extra=("m1",)) as lab:
        yield lab


def ssh(lab: Lab, host: str, *command: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
    identity = ["-i", str(key)] if key else []
    argv = [
        "ssh",
        "-F",
        str(lab.ssh_config),
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=3",
        *identity,
        host,
        *command,
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def fetch(host: Host, path: str = "/", port: int = 8080) -> tuple[int, str]:
    """Status and body; (0, "") while nothing answers."""
    try:
        with urllib.request.urlopen(f"http://{host.address}:{port}{path}", timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def eventually_fetch(host: Host, path: str = "/", port: int = 8080, timeout_s: float = 20) -> tuple[int, str]:
    end = time.monotonic() + timeout_s
    while (answer := fetch(host, path, port))[0] == 0 and time.monotonic() < end:
        time.sleep(0.05)
    return answer


def traces(name: str) -> list[str]:
    """Whatever of a lab can be seen on the machine."""
    cgroups = Path("/sys/fs/cgroup")
    found = [str(path) for pattern in (f"k4t-lab-{name}", f"*/k4t-lab-{name}") for path in cgroups.glob(pattern)]
    found += [str(path) for path in (Path("/run/k4t-lab") / f"{name}.json", state_directory(name)) if path.exists()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"k4t-lab-{name}" in line]
    found += [line for line in os.listdir("/sys/class/net") if line.startswith("k4l") and name in line]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"k4t-lab-{name}" in command or f"tests.lab.reaper {name} " in command:
                found.append(f"{process.name}: {command}")
    return found


def state_directory(name: str) -> Path:
    return Path(os.environ.get("TMPDIR") or "/var/tmp").resolve() / f"k4t-lab-{name}"


def wait_for_no_traces(name: str, timeout_s: float = 20) -> list[str]:
    end = time.monotonic() + timeout_s
    while (found := traces(name)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_ssh_by_name_and_address(lab: Lab) -> None:
    """OpenSSH logs in with the lab's files alone: strict host keys, by name and by address."""
    node = lab.host("n1")
    for target in ("n1", node.address):
        assert ssh(lab, target, "hostname").stdout == "n1\n"


def test_rsa_key(lab: Lab) -> None:
    """The RSA key is accepted too, by every host."""
    assert ssh(lab, "gw1", "-o", "IdentitiesOnly=yes", "hostname", key=lab.key_rsa).stdout == "gw1\n"


def test_ipv6(lab: Lab) -> None:
    """Hosts are reached by IPv6 as well."""
    with socket.create_connection((lab.host("n2").address6, 22), timeout=5) as connection:
        assert connection.recv(64).startswith(b"SSH-2.0")


def test_hosts_are_separate(lab: Lab) -> None:
    """A file or process of one host is not seen by another, nor by the machine."""
    n1, n2 = lab.host("n1"), lab.host("n2")
    n1.exec(["sh", "-c", "mkdir -p /var/lib/k4t && echo n1 >/var/lib/k4t/who && echo n1 >/etc/only-here"])
    for path in ("/var/lib/k4t/who", "/etc/only-here"):
        assert n2.exec(["test", "-e", path], check=False).returncode == 1
        assert not Path(path).exists()
    assert "dockerd" not in lab.host("gw1").exec(["ps", "-e"]).stdout


def test_a_command_over_ssh_runs_no_start_up_file_of_the_machine(lab: Lab) -> None:
    """bash reads ~/.bashrc at each command over SSH: the machine's could cost more than the command."""
    found = lab.host("n1").exec(["ls", "-A", "/root"]).stdout.split()
    assert not {".bashrc", ".bash_profile", ".bash_login", ".profile"} & set(found)


def test_envoy_and_dnsmasq_are_there(lab: Lab) -> None:
    """A gateway has both on its PATH, and nobody started them."""
    gateway = lab.host("gw1")
    assert "version" in gateway.exec(["envoy", "--version"]).stdout
    assert "Dnsmasq version" in gateway.exec(["dnsmasq", "--version"]).stdout
    running = gateway.exec(["ps", "-e"]).stdout
    assert "envoy" not in running
    assert "dnsmasq" not in running


def test_spawn_and_stop(lab: Lab) -> None:
    """A spawned process runs in the host, writes its log, and ends when it is told to."""
    gateway = lab.host("gw1")
    pid = gateway.spawn("web", ["sh", "-c", "echo started; exec busybox httpd -f -p 8000 -h /etc/ssh"])
    assert eventually_fetch(gateway, "/sshd_config", 8000)[0] == 200
    assert gateway.log("web").read_text() == "started\n"
    gateway.stop("web")
    assert not Path(f"/proc/{pid}/ns/net").exists()
    assert fetch(gateway, "/", 8000)[0] == 0


def test_command_that_hangs_is_ended(lab: Lab) -> None:
    """A time-out ends the command inside the host as well."""
    with pytest.raises(subprocess.TimeoutExpired):
        lab.host("m1").exec(["sleep", "7654"], timeout_s=0.5)
    assert "7654" not in lab.host("m1").exec(["ps", "-ef"]).stdout


def test_failed_command_names_the_host(lab: Lab) -> None:
    """What a command said is in the error."""
    with pytest.raises(LabError, match=r"m1: .*No such file"):
        lab.host("m1").exec(["ls", "/nowhere"])


def test_container_survives_a_power_cycle(lab: Lab) -> None:
    """A container with a restart policy serves again, files are still there, and docker.sock is at hand."""
    node = lab.host("n1")
    node.exec(["sh", "-c", "echo kept >/etc/kept"])
    node.docker(
        ["run", "-d", "--name", "web", "--network", "host", "--restart", "unless-stopped", "-e", "PORT=8080", lab.image]
    )
    assert eventually_fetch(node) == (200, "node=n1 port=8080 version=1\n")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(node.docker_socket))
    node.power_off()
    assert not node.is_on
    with pytest.raises(TimeoutError):
        socket.create_connection((node.address, 22), timeout=1)
    with pytest.raises(LabError, match="n1 is off"):
        node.exec(["true"])
    node.power_on()
    assert eventually_fetch(node)[0] == 200
    assert node.exec(["cat", "/etc/kept"]).stdout == "kept\n"
    assert ssh(lab, "n1", "true").returncode == 0
    node.docker(["rm", "-f", "web"])


def test_cut_network_is_silent(lab: Lab) -> None:
    """Cut off, a host neither refuses nor is unreachable: time-outs, for the machine and for the other hosts."""
    node = lab.host("n2")
    node.cut()
    try:
        with pytest.raises(TimeoutError):
            socket.create_connection((node.address, 22), timeout=1)
        started = time.monotonic()
        lab.host("m1").exec(["timeout", "4", "busybox", "nc", node.address, "22"], check=False)
        assert time.monotonic() - started > 3.5
    finally:
        node.restore()
    with socket.create_connection((node.address, 22), timeout=10):
        pass


def test_k4t_can_run_in_a_host(lab: Lab) -> None:
    """The repository, its Python and the lab's files are the same in a host: it can be the master."""
    code = f"import os, paramiko; os.stat({str(lab.key)!r}); print(os.getcwd())"
    seen = lab.host("m1").exec(["env", "-C", str(REPOSITORY), sys.executable, "-c", code])
    assert seen.stdout == f"{REPOSITORY}\n"


def test_image_variants(lab: Lab) -> None:
    """Variants carry another version, fail at once, answer 503, run read-only as nobody, and stop promptly."""
    node = lab.host("n2")
    options = ["--network", "host", "--read-only", "--user", "nobody"]
    node.docker(["run", "-d", "--name", "v2", *options, "-e", "PORT=8082", lab.push("2", VER=2)])
    node.docker(["run", "-d", "--name", "sick", *options, "-e", "PORT=8083", lab.push("sick", UNHEALTHY=1)])
    failed = node.docker(["run", "--name", "broken", *options, lab.push("broken", FAIL=1)], check=False)
    assert failed.returncode == 1
    assert "FAIL=1" in failed.stderr
    assert eventually_fetch(node, "/", 8082) == (200, "node=n2 port=8082 version=2\n")
    assert fetch(node, "/healthz", 8082) == (200, "ok\n")
    assert eventually_fetch(node, "/", 8083)[0] == 200
    assert fetch(node, "/healthz", 8083)[0] == 503
    node.docker(["stop", "v2", "sick"])
    ended = node.docker(["inspect", "--format", "{{.State.ExitCode}}", "v2", "sick"]).stdout.split()
    assert "137" not in ended  # Docker kills one that ignores SIGTERM, after 10 s
    node.docker(["rm", "v2", "sick", "broken"])


def test_archive_loads(lab: Lab) -> None:
    """An archive is what `docker load` takes."""
    node = lab.host("n2")
    node.docker(["load", "-i", str(lab.archive("archived"))])
    assert node.docker(["run", "--rm", "tiny:archived", "sh", "-c", "echo $VER"]).stdout == "archived\n"


def test_docker_daemon_paused_and_stopped(lab: Lab) -> None:
    """A paused daemon says nothing; a stopped one is gone; both come back."""
    node = lab.host("n2")
    node.pause_docker()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            node.docker(["ps"], timeout_s=1)
    finally:
        node.resume_docker()
    node.docker(["ps"])
    node.stop_docker()
    assert node.docker(["ps"], check=False).returncode != 0
    node.start_docker()
    node.docker(["ps"])


def test_new_host_key(lab: Lab) -> None:
    """After a changed key OpenSSH refuses to log in."""
    new = lab.host("m1").new_host_key()
    refused = ssh(lab, "m1", "true")
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    assert new.split()[1] not in lab.known_hosts.read_text()


def test_two_labs_at_once(lab: Lab) -> None:
    """A second lab has its own network and can't be told apart by host names; the first is untouched; nothing stays."""
    with Lab(name="lab-test2", nodes=1, registry=False) as other:
        assert other.host("n1").address != lab.host("n1").address
        assert other.host("n1").docker(["run", "--rm", other.image, "hostname", "-i"], check=False).returncode == 0
        assert ssh(other, "n1", "hostname").stdout == "n1\n"
        assert Lab.attach("lab-test").host("n2").is_on
        with pytest.raises(LabError, match="in use by process"):
            Lab(name="lab-test2").up()
    assert traces("lab-test2") == []
    assert lab.host("n1").docker(["ps"]).returncode == 0


def test_killed_owner_leaves_nothing() -> None:
    """SIGKILL for the process that brought a lab up: everything is gone soon after, containers too."""
    script = (
        "import sys, time; from tests.lab import Lab\n"
        "with Lab(name='lab-test3', nodes=1) as lab:\n"
        "    lab.host('n1').docker(['run', '-d', '--restart', 'always', lab.image])\n"
        "    print('up', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert traces("lab-test3")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert wait_for_no_traces("lab-test3") == []


@pytest.mark.crash
def test_owner_killed_while_it_comes_up() -> None:
    """SIGKILL at any moment of coming up leaves nothing either, not even a host that was just about to boot."""
    script = (
        "from tests.lab import Lab\nprint('here', flush=True)\n"
        "Lab(name='lab-test6', nodes=2, gateways=1).up(); import time; time.sleep(600)\n"
    )
    for moment_s in (0.05, 0.12, 0.18, 0.24, 0.3, 0.4, 0.5):
        with subprocess.Popen(
            [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "here\n"
            time.sleep(moment_s)
            owner.send_signal(signal.SIGKILL)
            owner.wait()
        assert wait_for_no_traces("lab-test6") == [], f"killed after {moment_s} s"


def test_remains_are_cleaned_by_the_next_up() -> None:
    """Owner and reaper killed both: the next lab of that name removes what they left, and comes up."""
    script = (
        "import time; from tests.lab import Lab\n"
        "lab = Lab(name='lab-test5', nodes=1, registry=False).up()\n"
        "print(lab._reaper.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        os.kill(int(owner.stdout.readline()), signal.SIGKILL)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert traces("lab-test5")
    with Lab(name="lab-test5", nodes=0, gateways=1, registry=False) as lab:
        assert [host.name for host in lab.hosts if host.is_on] == ["gw1"]
    assert traces("lab-test5") == []


def test_by_hand() -> None:
    """`up` leaves a lab for later processes, `down` takes it away."""

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.lab", *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    name = ("--name", "lab-test4")
    try:
        up = cli("up", *name, "--nodes", "1", "--no-registry")
        assert up.returncode == 0, up.stderr
        assert cli("exec", *name, "n1", "hostname").stdout == "n1\n"
        assert cli("ssh", *name, "n1", "hostname").stdout == "n1\n"
        assert "up already" in cli("up", *name).stderr
        assert cli("kill", *name, "n1").returncode == 0
        assert "off" in cli("status", *name).stdout
        assert cli("start", *name, "n1").returncode == 0
    finally:
        down = cli("down", *name)
    assert down.returncode == 0, down.stderr
    assert traces("lab-test4") == []
