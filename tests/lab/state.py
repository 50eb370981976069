"""Which labs exist on this machine: one small file each in /run/k4t-lab, changed under a lock on that directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab.errors import LabError

LABS = Path("/run/k4t-lab")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")
RESERVED = re.compile(r"reg|switch|machine|(n|gw|dns)\d+")  # say what a host is
MACHINE_LAST = 1
REGISTRY_LAST = 250
EXTRA_LAST = 221
NUMBER_MAX = 255


@dataclass(frozen=True, slots=True)
class Spec:
    """What a lab is made of. `hosts`: name to last number of the address; `number`: the N of 10.88.N.0/24."""

    name: str
    number: int
    directory: str
    hosts: dict[str, int] = field(default_factory=dict)
    registry: bool = True
    id: str = ""  # random: tells this lab from a later one of the same name
    by_hand: bool = False
    ready: bool = False
    owner_pid: int = 0
    owner_started: int = 0

    @property
    def interface(self) -> str:
        """The machine's own end in the root namespace; at most 15 characters, unique by number."""
        return f"k4l{self.number}-{self.name}"[:15]

    @property
    def cgroup(self) -> str:
        return f"k4t-lab-{self.name}"

    @property
    def path(self) -> Path:
        return Path(self.directory)

    def address(self, host: str) -> str:
        return address_v4(self.number, self.hosts[host])

    def address6(self, host: str) -> str:
        return address_v6(self.number, self.hosts[host])


def address_v4(number: int, last: int) -> str:
    return f"10.88.{number}.{last}"


def address_v6(number: int, last: int) -> str:
    return f"fd88:{number}::{last}"


def name_hosts(nodes: int, gateways: int, dns: int, registry: bool, extra: tuple[str, ...]) -> dict[str, int]:
    """Names and last numbers: n1 is .11, gw1 .201, dns1 .211, the first extra host .221, reg .250."""
    for what, count, limit in (
        ("nodes", nodes, 180),
        ("gateways", gateways, 10),
        ("dns", dns, 10),
        ("extra", len(extra), 20),
    ):
        if not 0 <= count <= limit:
            raise LabError(f"{count} {what}: a lab has 0 to {limit}")
    hosts = {f"n{i}": 10 + i for i in range(1, nodes + 1)}
    hosts |= {f"gw{i}": 200 + i for i in range(1, gateways + 1)}
    hosts |= {f"dns{i}": 210 + i for i in range(1, dns + 1)}
    for i, name in enumerate(extra):
        if not NAME.fullmatch(name) or len(name) > 12 or name in hosts or RESERVED.fullmatch(name):
            raise LabError(f"extra host {name!r}: take another name of at most 12 of a-z, 0-9 and -, used once")
        hosts[name] = EXTRA_LAST + i
    return hosts | ({"reg": REGISTRY_LAST} if registry else {})


def default_directory(name: str) -> Path:
    return Path(os.environ.get("TMPDIR") or "/var/tmp").resolve() / f"k4t-lab-{name}"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the one lock over all labs of this machine; the directory may vanish and come back while we wait."""
    for _ in range(1000):
        LABS.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(LABS, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still_there(descriptor):
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        LABS.rmdir()
                return
        finally:
            os.close(descriptor)
    raise LabError(f"{LABS}: could not be locked in 1,000 attempts; does something remove it all the time?")


def _is_still_there(descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(LABS))
    except FileNotFoundError:
        return False


def load(name: str) -> Spec | None:
    """The lab of that name as it was written down, or None."""
    try:
        return Spec(**json.loads((LABS / f"{name}.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LabError(f"{LABS}/{name}.json can't be read ({error}); remove it") from error


def save(spec: Spec) -> None:
    """Write a lab down, whole or not at all. Call it under `locked`."""
    with tempfile.NamedTemporaryFile("w", dir=LABS, prefix=".", delete=False) as file:
        json.dump(asdict(spec), file)
    os.rename(file.name, LABS / f"{spec.name}.json")


def forget(name: str) -> None:
    (LABS / f"{name}.json").unlink(missing_ok=True)


def names() -> list[str]:
    return sorted(path.stem for path in LABS.glob("*.json")) if LABS.is_dir() else []


def numbers_in_use() -> set[int]:
    specs = [load(name) for name in names()]
    return {spec.number for spec in specs if spec is not None}
