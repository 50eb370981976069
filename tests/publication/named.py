"""A real BIND on this machine: a dynamic zone in a directory of its own, a TSIG key, rndc."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

KEY_NAME = "k4t"
OTHER_KEY = "somebody"

CONF = """\
key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
key "{other}" {{ algorithm hmac-sha256; secret "{secret}"; }};
key "rndc" {{ algorithm hmac-sha256; secret "{secret}"; }};
controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ "rndc"; }}; }};
options {{
  directory "{directory}"; pid-file "{directory}/named.pid"; session-keyfile "{directory}/session.key";
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 port {port} {{ ::1; }};
  recursion no; dnssec-validation no; notify no; allow-transfer {{ any; }}; {options}
}};
zone "k4t.lab" {{ type primary; file "k4t.lab.zone"; allow-update {{ key "{key}"; }}; }};
zone "0.10.in-addr.arpa" {{ type primary; file "reverse.zone"; allow-update {{ key "{key}"; }}; }};
zone "static.lab" {{ type primary; file "static.lab.zone"; }};
"""
ZONE = """\
$TTL 300
@ IN SOA ns.k4t.lab. root.k4t.lab. 1 3600 600 86400 60
@ IN NS ns.k4t.lab.
ns.k4t.lab. IN A 127.0.0.1
"""
OUTSIDE = ZONE.replace("ns.k4t.lab. IN A 127.0.0.1\n", "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Named:
    """`options` go into its options block."""

    directory: Path
    options: str = ""
    port: int = field(default_factory=free_port)
    control: int = field(default_factory=free_port)
    secret: str = field(default_factory=lambda: base64.b64encode(os.urandom(32)).decode())
    process: subprocess.Popen[bytes] | None = None

    def blank(self) -> None:
        """A replacement that nobody has written to."""
        for path in self.directory.glob("*"):
            path.unlink()
        (self.directory / "k4t.lab.zone").write_text(ZONE)
        (self.directory / "static.lab.zone").write_text(OUTSIDE)
        (self.directory / "reverse.zone").write_text(OUTSIDE)
        text = CONF.format(
            key=KEY_NAME, other=OTHER_KEY, secret=self.secret, directory=self.directory, port=self.port,
            control=self.control, options=self.options,
        )  # fmt: skip
        (self.directory / "named.conf").write_text(text)
        rndc = f'key "rndc" {{ algorithm hmac-sha256; secret "{self.secret}"; }};\n'
        rndc += f'options {{ default-key "rndc"; default-server 127.0.0.1; default-port {self.control}; }};\n'
        (self.directory / "rndc.conf").write_text(rndc)

    def start(self) -> None:
        program = shutil.which("named", path="/usr/sbin:/usr/bin")
        assert program, "BIND is not installed: apt-get install bind9"
        argv = [program, "-g", "-n", "1", "-c", str(self.directory / "named.conf")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        for _ in range(200):
            if self.dig("k4t.lab", "SOA"):
                return
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            time.sleep(0.05)
        raise AssertionError("named does not answer")

    def stop(self, how: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def rndc(self, *argv: str) -> None:
        program = shutil.which("rndc", path="/usr/sbin:/usr/bin")
        assert program
        subprocess.run(
            [program, "-c", str(self.directory / "rndc.conf"), *argv], check=True, capture_output=True, timeout=20
        )

    def dig(self, name: str, kind: str = "A") -> list[str]:
        """The system's own client."""
        argv = ["dig", "+short", "+time=2", "+tries=1", "-p", str(self.port), "@127.0.0.1", name, kind]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)
        return sorted(line for line in done.stdout.split("\n") if line and not line.startswith(";"))

    def nsupdate(self, *lines: str) -> None:
        """By hand."""
        self.nsupdate_raw("\n".join((f"server 127.0.0.1 {self.port}", "zone k4t.lab", *lines, "send")))

    def nsupdate_raw(self, text: str) -> None:
        argv = ["nsupdate", "-y", f"hmac-sha256:{KEY_NAME}:{self.secret}"]
        done = subprocess.run(argv, input=text + "\n", check=False, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr

    def dump(self) -> list[str]:
        """The whole zone by AXFR, sorted, without what changes with every write anyway."""
        argv = ["dig", "+nocomments", "+nocmd", "+nostats", "-p", str(self.port), "@127.0.0.1", "k4t.lab", "AXFR"]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20)
        return sorted({" ".join(line.split()) for line in done.stdout.splitlines() if line and "SOA" not in line})
