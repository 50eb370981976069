"""Takes a lab away, in whatever state: for its owner, the reaper, `down`, and the next `up` of that name."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import network, state
from tests.lab.errors import LabError
from tests.lab.processes import Process, reap, wait_until
from tests.lab.state import Spec

MARKER = ".k4t-lab"  # only a directory that holds this file is ever deleted


def tear_down(spec: Spec) -> None:
    """No process, mount, namespace, veth, cgroup, address or file is left. Call it under `state.locked`."""
    _end_processes(spec)
    network.remove_machine_interface(spec)
    if (spec.path / "net").is_dir():
        for file in sorted((spec.path / "net").iterdir()):
            network.remove_namespace(file)
    _remove_cgroups(spec)
    remove_directory(spec.path)
    state.forget(spec.name)
    reap()


def remove_directory(directory: Path) -> None:
    """Delete a lab's directory; refuses one that is not a lab's or still has something mounted in it."""
    if not directory.exists():
        return
    if not (directory / MARKER).exists():
        raise LabError(f"{directory}: not a lab's directory ({MARKER} is missing in it); move it away")
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [target for target in mounted if target.startswith(f"{directory}/")]
    if inside:
        raise LabError(f"{directory}: still mounted: {', '.join(inside)}; unmount it, then run down again")
    for child in directory.iterdir():
        if child.name != MARKER:
            _remove(child)
    shutil.rmtree(directory)


def _remove(path: Path) -> None:
    """rmtree that bears with a namespace still being taken apart: files that vanish, busy work directories."""
    for attempt in range(50):
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except FileNotFoundError:
            continue
        except OSError:
            if attempt == 49:
                raise
            time.sleep(0.05)
        else:
            return


def _end_processes(spec: Spec) -> None:
    pids = sorted((spec.path / "run").glob("*.pid")) if (spec.path / "run").is_dir() else []
    # PID 1 of each host first: the kernel ends everything in its pid namespace with it.
    pids.sort(key=lambda path: not path.name.endswith(".init.pid"))
    processes = [process for process in map(Process.load, pids) if process is not None]
    if processes:
        with ThreadPoolExecutor(len(processes)) as pool:
            list(pool.map(Process.end, processes))


def cgroup_roots() -> list[Path]:
    """The mount points of all cgroup hierarchies, version 1 and 2."""
    fields = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(f[4]) for f in fields if f[f.index("-") + 1] in ("cgroup", "cgroup2")]


def _remove_cgroups(spec: Spec) -> None:
    for root in cgroup_roots():
        top = root / spec.cgroup
        if top.is_dir() and not wait_until(lambda top=top: _remove_cgroup(top), timeout_s=10):  # type: ignore[misc]
            raise LabError(f"{top}: this cgroup still has processes: see cgroup.procs below it")


def _remove_cgroup(top: Path) -> bool:
    for directory, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not top.exists()
