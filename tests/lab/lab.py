"""The lab as a whole: comes up, hands out its hosts, goes away."""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import images, keys, network, reaper, root, state
from tests.lab.checks import check_machine
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.images import Variant
from tests.lab.processes import Process
from tests.lab.state import Spec
from tests.lab.teardown import MARKER, remove_directory, tear_down


class Lab:
    """Hosts n1…, gw1…, dns1…, `reg` and the `extra` ones, on 10.88.N.0/24 and fd88:N::/64.

    As a context manager it lives as long as its process at most: a reaper takes it down when the process dies.
    """

    def __init__(
        self,
        name: str = "lab",
        *,
        nodes: int = 2,
        gateways: int = 0,
        dns: int = 0,
        registry: bool = True,
        extra: tuple[str, ...] = (),
    ) -> None:
        if not state.NAME.fullmatch(name):
            raise LabError(
                f"lab name {name!r}: at most 24 of a-z, 0-9 and -, beginning and ending with a letter or digit"
            )
        hosts = state.name_hosts(nodes, gateways, dns, registry, tuple(extra))
        self._spec = Spec(name, -1, str(state.default_directory(name)), hosts, registry)
        self._reaper: subprocess.Popen[bytes] | None = None

    @classmethod
    def attach(cls, name: str = "lab") -> Lab:
        """The lab of that name that another process brought up; leaving it does not take it down."""
        spec = state.load(name)
        if spec is None:
            known = ", ".join(state.names()) or "none"
            raise LabError(f"no lab named {name!r} is up (up: {known}); python -m tests.lab up --name {name}")
        lab = cls.__new__(cls)
        lab._spec, lab._reaper = spec, None
        return lab

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # Life

    def up(self, *, by_hand: bool = False) -> Self:
        """Bring it up, or leave nothing behind. `by_hand`: it stays when this process ends, until `down`."""
        check_machine(self._spec)
        self._spec = _register(self._spec, by_hand)
        try:
            if not by_hand:
                self._reaper = reaper.start(self._spec)
            self._build()
            with state.locked():
                self._spec = dataclasses.replace(self._spec, ready=True)
                state.save(self._spec)
        except BaseException:
            self.down()
            raise
        return self

    def down(self) -> None:
        """Take it down; nothing is left. Nothing happens when it is down already."""
        with state.locked():
            spec = state.load(self.name)
            if spec is not None and spec.id == self._spec.id:
                tear_down(spec)
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait(timeout=30)
            self._reaper = None

    # Hosts

    def host(self, name: str) -> Host:
        if name not in self._spec.hosts:
            raise LabError(f"lab {self.name} has no host {name!r}; it has {', '.join(self._spec.hosts)}")
        return Host(self._spec, name)

    @property
    def hosts(self) -> list[Host]:
        return [Host(self._spec, name) for name in self._spec.hosts]

    @property
    def nodes(self) -> list[Host]:
        return [host for host in self.hosts if "dockerd" in root.services(host.name)]

    # What it is called

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def directory(self) -> Path:
        """Keys, logs, pids; the same directory in every host, so files can be handed over in it."""
        return self._spec.path

    @property
    def address(self) -> str:
        """The machine's own address on the lab's network."""
        return state.address_v4(self._spec.number, state.MACHINE_LAST)

    @property
    def key(self) -> Path:
        return self.directory / "key" / "id_ed25519"

    @property
    def key_rsa(self) -> Path:
        """An RSA key that every host accepts too; made when it is first asked for."""
        path = self.directory / "key" / "id_rsa"
        if not path.exists():
            keys.client_key(self._spec, "rsa")
            keys.authorize(self._spec, path.with_suffix(".pub"))
        return path

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    # Images

    @property
    def registry(self) -> str | None:
        return f"{self._spec.address('reg')}:5000" if self._spec.registry else None

    @property
    def image(self) -> str:
        return self._reference("1")

    def push(
        self,
        tag: str,
        *,
        command: tuple[str, ...] = ("/run",),
        healthcheck: tuple[str, ...] | None = None,
        **env: str | int,
    ) -> str:
        """Make a variant of the tiny image available; returns its reference. Without a registry, each node loads it."""
        variant = Variant(tag, {k: str(v) for k, v in env.items()}, command, healthcheck)
        if self.registry is not None:
            images.push(variant, self.registry)
        else:
            archive = self._archive(variant)
            for node in self.nodes:
                node.docker(["load", "-q", "-i", str(archive)])
        return self._reference(tag)

    def archive(self, tag: str, **env: str | int) -> Path:
        """A `docker save` archive of the variant tiny:TAG; without variables, VER is the tag."""
        values = {k: str(v) for k, v in env.items()} or {"VER": tag}
        return self._archive(Variant(tag, values))

    def pull(self, reference: str | None = None) -> None:
        """Let every node that is on have an image (default: the tiny one) before the work begins."""
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda node: node.docker(["pull", "-q", reference or self.image]),
                    [n for n in self.nodes if n.is_on],
                )
            )

    def _reference(self, tag: str) -> str:
        return f"{self.registry}/tiny:{tag}" if self.registry else f"tiny:{tag}"

    def _archive(self, variant: Variant) -> Path:
        directory = self.directory / "archives"
        directory.mkdir(exist_ok=True)
        return images.write_archive(variant, f"tiny:{variant.tag}", directory / f"tiny-{variant.tag}.tar")

    def _build(self) -> None:
        spec = self._spec
        _make_directory(spec)
        with ThreadPoolExecutor(max(len(spec.hosts), 1)) as pool:
            switch = pool.submit(network.build_switch, spec)
            client = pool.submit(keys.client_key, spec)
            pairs = [(host, kind) for host in spec.hosts for kind in keys.HOST_KEY_KINDS]
            list(pool.map(lambda pair: keys.host_key(spec, *pair), pairs))
            client.result()
            switch.result()
            list(pool.map(self._start, spec.hosts))
        keys.write_client_files(spec)
        if self.registry or self.nodes:
            self.push("1", VER=1)

    def _start(self, host: str) -> None:
        root.prepare(self._spec, host)
        Host(self._spec, host).power_on()


def _register(wanted: Spec, by_hand: bool) -> Spec:
    """Take the name and a free subnet; the remains of a dead lab of that name go first."""
    with state.locked():
        old = state.load(wanted.name)
        if old is not None:
            _refuse_living(old)
            tear_down(old)
        owner = Process.of(os.getpid())
        spec = dataclasses.replace(
            wanted,
            number=_free_number(wanted.name),
            id=secrets.token_hex(8),
            by_hand=by_hand,
            ready=False,
            owner_pid=os.getpid(),
            owner_started=owner.started if owner else 0,
        )
        state.save(spec)
        return spec


def _refuse_living(old: Spec) -> None:
    if Process(old.owner_pid, old.owner_started).alive():
        raise LabError(f"lab {old.name} is in use by process {old.owner_pid}; wait for it or take another name")
    if old.by_hand and old.ready and any(Host(old, host).is_on for host in old.hosts):
        raise LabError(f"lab {old.name} is up already; python -m tests.lab down --name {old.name}")


def _free_number(name: str) -> int:
    used = state.numbers_in_use()
    for number in range(0 if name == "lab" else 1, state.NUMBER_MAX + 1):  # 0 is kept for the lab of the demo
        if number not in used and network.number_is_free(number):
            return number
    raise LabError("all of 10.88.0.0/16 is taken; python -m tests.lab down the labs you no longer need")


def _make_directory(spec: Spec) -> None:
    remove_directory(spec.path)  # from before a reboot: /run forgot it, the disk did not
    try:
        spec.path.mkdir(mode=0o755)
    except OSError as error:
        raise LabError(f"{spec.path}: {error.strerror}; set TMPDIR to a directory on ext4, xfs or tmpfs") from error
    (spec.path / MARKER).touch()
    for name in ("key", "hostkeys", "run", "hosts", "authorized"):
        (spec.path / name).mkdir()
    (spec.path / "authorized" / "authorized_keys").touch()
    # sshd reads no keys from what others may write, and their umask may be any
    (spec.path / "authorized").chmod(0o755)
    (spec.path / "authorized" / "authorized_keys").chmod(0o644)
