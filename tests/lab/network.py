"""Network namespaces, the switch and its ports.

The switch (a bridge) stands in its own namespace: in the root one, Docker's FORWARD DROP would eat the frames.
Each host's namespace is bind-mounted on the file LAB/net/HOST; its `eth0` is the far end of the switch port `p-HOST`.
Neighbours are fixed (the MAC address follows from the IP address), so that a host that is off or cut off is silence, a
time-out, and not “no route to host”.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from tests.lab import kernel, state
from tests.lab.errors import LabError
from tests.lab.processes import run
from tests.lab.state import Spec

SWITCH = "switch"  # not a host's name: the file LAB/net/switch
HAS_IPV6 = Path("/proc/sys/net/ipv6").exists()


def build_switch(spec: Spec) -> None:
    """The bridge, and the machine's own address on it."""
    (spec.path / "net").mkdir(exist_ok=True)
    _new_namespace(_file(spec, SWITCH), bridge_filter=False)
    _ip(spec, SWITCH, ["link set lo up", "link add br0 type bridge forward_delay 0", "link set br0 up"])
    _ip(
        spec,
        SWITCH,
        [
            f"link add p-machine type veth peer name {spec.interface} netns {os.getpid()}",
            "link set p-machine master br0 up",
        ],
    )
    _ip(spec, None, _addresses(spec, spec.interface, state.MACHINE_LAST) + _neighbours(spec, spec.interface, None))


def plug(spec: Spec, host: str) -> None:
    """A fresh namespace for a host, plugged into the switch."""
    unplug(spec, host)
    _new_namespace(_file(spec, host))
    # The peer is created right in the host's namespace, which iproute2 wants by name, pid or path.
    _ip(
        spec,
        SWITCH,
        [f"link add p-{host} type veth peer name eth0 netns {_file(spec, host)}", f"link set p-{host} master br0 up"],
    )
    _ip(spec, host, ["link set lo up", *_addresses(spec, "eth0", spec.hosts[host]), *_neighbours(spec, "eth0", host)])


def unplug(spec: Spec, host: str) -> None:
    """Take a host's port and namespace away; nothing happens when there are none."""
    file = _file(spec, host)
    if file.is_mount() or _is_namespace(file):
        _ip(spec, SWITCH, [f"link del p-{host}"], check=False)
    remove_namespace(file)


def set_port(spec: Spec, host: str, *, up: bool) -> None:
    _ip(spec, SWITCH, [f"link set p-{host} {'up' if up else 'down'}"])


def remove_namespace(file: Path) -> None:
    for _ in range(8):  # mounted over itself more than once only after a crash
        try:
            kernel.unmount(str(file))
        except OSError:
            break
    file.unlink(missing_ok=True)


def remove_machine_interface(spec: Spec) -> None:
    if Path(f"/sys/class/net/{spec.interface}").exists():
        run(["ip", "link", "del", spec.interface], check=False)


def number_is_free(number: int) -> bool:
    """Does no interface and no route of the machine use 10.88.N.0/24?"""
    return not run(["ip", "-4", "route", "show", "root", f"10.88.{number}.0/24"]).stdout.strip()


def enter(spec: Spec, host: str) -> list[str]:
    """The command that runs another one in a host's network namespace alone."""
    return ["nsenter", f"--net={_file(spec, host)}", "--"]


def _file(spec: Spec, host: str) -> Path:
    return spec.path / "net" / host


def _is_namespace(file: Path) -> bool:
    try:
        return os.stat(file).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def _mac(spec: Spec, last: int) -> str:
    return f"02:4b:34:54:{spec.number:02x}:{last:02x}"


def _addresses(spec: Spec, interface: str, last: int) -> list[str]:
    lines = [f"link set {interface} address {_mac(spec, last)}"]
    lines += [f"addr add {state.address_v4(spec.number, last)}/24 dev {interface}"]
    if HAS_IPV6:
        lines += [f"addr add {state.address_v6(spec.number, last)}/64 dev {interface} nodad"]
    return [*lines, f"link set {interface} up"]


def _neighbours(spec: Spec, interface: str, me: str | None) -> list[str]:
    lasts = [last for host, last in spec.hosts.items() if host != me]
    lasts += [] if me is None else [state.MACHINE_LAST]
    lines = []
    for last in lasts:
        tail = f"lladdr {_mac(spec, last)} nud permanent dev {interface}"
        lines.append(f"neigh replace {state.address_v4(spec.number, last)} {tail}")
        if HAS_IPV6:
            lines.append(f"neigh replace {state.address_v6(spec.number, last)} {tail}")
    return lines


def _ip(spec: Spec, host: str | None, lines: list[str], *, check: bool = True) -> None:
    # nsenter --net, not `ip netns exec`: the latter remounts /sys and so hides /sys/fs/cgroup
    prefix = [] if host is None else enter(spec, host)
    run(
        [*prefix, "ip", "-batch", "-"],
        input="\n".join(lines) + "\n",
        check=check,
        where=f"network of {host or 'the machine'}",
    )


def _new_namespace(file: Path, *, bridge_filter: bool = True) -> None:
    """A new network namespace, kept by a bind mount on `file`. Made in a thread: namespaces belong to threads."""
    failed: list[OSError] = []

    def make() -> None:
        try:
            kernel.unshare_network()
            if not bridge_filter:
                with contextlib.suppress(OSError):  # no br_netfilter: nothing to switch off
                    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0")
                with contextlib.suppress(OSError):
                    Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables").write_text("0")
            kernel.bind(f"/proc/self/task/{threading.get_native_id()}/ns/net", str(file))
        except OSError as error:
            failed.append(error)

    file.touch()
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise LabError(
            f"no network namespace for {file.name}: {failed[0]}; the lab needs a machine that permits them"
        ) from failed[0]
