"""What stands outside the hosts: a power switch that they can ask (`virsh`), and what systemd does for a service.

`virsh -c URI start|destroy NAME` and `systemctl enable|disable|restart|stop|poweroff` are small programs on the hosts
that `install` has been called for. What they can't do there they leave word of in the lab's directory, and wait; this
process does it.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.processes import POLL_S
from tests.lab.root import REPOSITORY

UNITS = "/etc/systemd/system"
WANTS = f"{UNITS}/multi-user.target.wants"
ASK = """\
ask={directory}/$(hostname)-$$
printf '%s %s\\n' "$1" "$2" > "$ask.new" && mv "$ask.new" "$ask.ask" || exit 1
n=0
while [ ! -e "$ask.said" ]; do
  n=$((n+1)); [ "$n" -lt 900 ] || {{ echo 'error: the hypervisor does not answer' >&2; exit 1; }}
  sleep 0.1
done
cat "$ask.said"; ! grep -q ^error: "$ask.said"
"""
VIRSH = """\
#!/bin/sh
# virsh -c URI start|destroy NAME
[ "$1" = -c ] && case $2 in qemu+ssh://*) ;; *) false;; esac || { echo "error: no such connection: $2" >&2; exit 1; }
shift 2
"""
SYSTEMCTL = f"""\
#!/bin/sh
case $1 in
  daemon-reload|start) exit ;;
  enable) mkdir -p {WANTS} && ln -sf "{UNITS}/$2" {WANTS}/; exit ;;
  disable) rm -f "{WANTS}/$2"; exit ;;
  poweroff) kill 1; exit ;;
  restart|stop) set -- "$1@$(hostname)" "$2" ;;
  *) echo "Unknown command verb $1." >&2; exit 1 ;;
esac
"""


class Hypervisor:
    """`names`: what hosts are called by those who ask, and in the lab. As a context manager it answers."""

    def __init__(self, lab: Lab, names: Mapping[str, str]) -> None:
        self.lab, self.names = lab, names
        self.directory = lab.directory / "hypervisor"
        self.directory.mkdir(exist_ok=True)
        self.done: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._answer, name="hypervisor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def install(self, host: Host) -> None:
        """Both programs, on one host."""
        asking = ASK.format(directory=self.directory)
        for name, text in (("virsh", VIRSH + asking), ("systemctl", SYSTEMCTL + asking)):
            host.exec(["tee", f"/usr/local/bin/{name}"], input=text)
            host.exec(["chmod", "755", f"/usr/local/bin/{name}"])
        host.exec(["mkdir", "-p", UNITS, "/run/systemd/system"])

    def _answer(self) -> None:
        while not self._ended.wait(POLL_S):
            for asked in sorted(self.directory.glob("*.ask")):
                verb, name = asked.read_text().split()
                try:
                    said = self._switch(verb, name)
                except LabError as error:
                    said = f"error: {error}"
                asked.unlink()
                _publish(asked.with_suffix(".said"), f"{said}\n")

    def _switch(self, verb: str, name: str) -> str:
        verb, _, asker = verb.partition("@")
        if asker:
            return self._serve(self.lab.host(asker), verb, name)
        if name not in self.names:
            return f"error: failed to get domain '{name}'"
        host = self.lab.host(self.names[name])
        host.power_off()
        if verb == "start":
            host.power_on()
            for unit in enabled(host):
                start(host, unit)
        self.done.append(f"{verb} {name}")
        return f"Domain '{name}' {'started' if verb == 'start' else 'destroyed'}"

    def _serve(self, host: Host, verb: str, unit: str) -> str:
        host.stop(unit.removesuffix(".service"))
        if verb == "restart":
            start(host, unit)
        return ""


def enabled(host: Host) -> list[str]:
    """The units of k4t that were enabled there. The machine's own, which shine through, are not the host's."""
    return host.exec(["sh", "-c", f"cd {WANTS} 2>&- && ls -d k4t-* 2>&- || :"]).stdout.split()


def start(host: Host, unit: str) -> None:
    """What `systemctl start` would: its ExecStart with its Environment (systemd.service, systemd.exec)."""
    lines = host.exec(["cat", f"{UNITS}/{unit}"]).stdout.splitlines()
    settings = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    environment = [word for key, text in settings if key == "Environment" for word in _words(text)]
    (argv,) = (_words(text) for key, text in settings if key == "ExecStart")
    environment.append(f"PYTHONPATH={REPOSITORY}")  # this very k4t, not the one that is installed
    host.spawn(unit.removesuffix(".service"), ["env", *environment, *(word.replace("$$", "$") for word in argv)])


def _words(text: str) -> list[str]:
    return [word.replace("%%", "%") for word in shlex.split(text)]


def _publish(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)
