"""`make demo`: the tree in db/ applied as it is on real hosts, and looked at through the gateway and by name."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.lab import Lab, LabError, state

ROOT = Path(__file__).resolve().parents[2]
WANTED_ADDRESS = "10.88.0.1"
DOMAIN = "web.k4t.lab"
REQUESTS = 20


def main() -> int:
    action = sys.argv[1] if len(sys.argv) > 1 else "up"
    try:
        return down() if action == "down" else up()
    except LabError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"demo: {' '.join(error.cmd[-3:])} ended with status {error.returncode}\n")
        return 1


def down() -> int:
    """Nothing is left: no process, mount, namespace, address or file. What k4t remembered of the lab goes too."""
    down_quietly()
    say("The lab is gone.")
    return 0


def up() -> int:
    say("Bringing up a lab: two nodes with Docker, one host for Envoy and dnsmasq, a registry …")
    down_quietly()
    lab = Lab("lab", nodes=2, gateways=1, registry=True).up(by_hand=True)
    if lab.address != WANTED_ADDRESS:
        lab.down()
        raise LabError(f"the addresses in db/ are taken: this lab got {lab.address}; python -m tests.lab status")
    assert lab.image  # pushed to the registry by coming up
    environment = _environment(lab)
    for words in (
        ("gateway", "install"),
        ("dns", "install"),
        ("validate",),
        ("apply", "--yes", "-m", "the demo"),
        ("status",),
    ):
        k4t(environment, *words)
    edge = lab.host("gw1").address
    nodes = pages(edge)
    addresses = resolve(edge)
    say("")
    say(f"http://{DOMAIN}/ through Envoy at {edge}, {REQUESTS} requests, answered by: {', '.join(sorted(nodes))}")
    say(f"{DOMAIN} asked of dnsmasq at {edge}: {', '.join(sorted(addresses))}")
    k4t(environment, "apply", "--yes")
    k4t(environment, "backup", "list")
    k4t(environment, "monitor", "check", may_find=True)
    if len(nodes) < 2 or len(addresses) < 2:
        raise LabError(f"both nodes should answer and be named; got {sorted(nodes)}, {sorted(addresses)}")
    _next_steps(lab, edge)
    return 0


def down_quietly() -> None:
    if "lab" in state.names():
        Lab.attach("lab").down()
    shutil.rmtree(ROOT / "db" / ".k4t", ignore_errors=True)
    (ROOT / "db" / "recovery.xml").unlink(missing_ok=True)  # its keys went with the lab


def _environment(lab: Lab) -> dict[str, str]:
    """A home with the lab's key and host keys, so that the tree needs to name neither."""
    home = lab.directory / "demo"
    (home / ".ssh").mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copy(lab.key, home / ".ssh" / "id_ed25519")
    shutil.copy(lab.known_hosts, home / ".ssh" / "known_hosts")
    (home / ".ssh" / "id_ed25519").chmod(0o600)
    script = home / "env"
    script.write_text(f"export HOME={home} PATH={ROOT}/.venv/bin:$PATH\nunset SSH_AUTH_SOCK\n")
    kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
    return {**kept, "HOME": str(home), "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}


def k4t(environment: dict[str, str], *words: str, may_find: bool = False) -> None:
    """`may_find`: 1 is no failure; what is wrong with this very machine (a full disk) is told, and no more."""
    say(f"\n$ k4t {' '.join(words)}")
    argv = [str(ROOT / ".venv/bin/k4t"), *words]
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False)
    if done.returncode not in (0, 1 if may_find else 0):
        raise subprocess.CalledProcessError(done.returncode, argv)


def pages(gateway: str) -> set[str]:
    """The nodes that answered, as their pages name them."""
    found = set()
    for _ in range(REQUESTS):
        request = urllib.request.Request(f"http://{gateway}/", headers={"Host": DOMAIN})
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - the same
            found.add(answer.read().decode().split()[0])
    return found


def resolve(server: str) -> set[str]:
    """IPv4 addresses of the name, asked of that server alone (RFC 1035: one question, answers of type A)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in DOMAIN.split("."))
    question = labels + b"\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(struct.pack(">HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + question, (server, 53))
        answer = sock.recv(4096)
    (count,) = struct.unpack(">H", answer[6:8])
    # Each answer is a pointer to the name, type, class, TTL, length 4, and the address: 16 bytes.
    start = 12 + len(question)
    return {socket.inet_ntoa(answer[start + 16 * place + 12 : start + 16 * place + 16]) for place in range(count)}


def _next_steps(lab: Lab, edge: str) -> None:
    say(
        f"""
The lab stays up. To go on by hand:

  . {lab.directory}/demo/env        # the lab's key, and k4t on the PATH
  k4t status
  curl -H 'Host: {DOMAIN}' http://{edge}/
  sed -i 's/replicas="2"/replicas="1"/' db/apps/web/app.xml && k4t plan      # then: git checkout db
  rm -r db/apps/web && k4t restore --app web                                  # back from a copy on a node
  python -m tests.lab exec n1 docker rm -f demo.heartbeat.0.1                 # k4t plan sees it, k4t apply mends it
  python -m tests.lab exec n2 docker stop demo.web.0.1; k4t monitor run       # it mends that: db/monitor.xml
  k4t monitor page --out page.html                                            # the cluster in a browser
  python -m tests.lab kill n2                                                 # power a node off: k4t status --watch

When you have seen enough: make demo-down"""
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
