"""Measure k4t beside the physical limit: python -m tests.bench [--quick] [--only deploy noop …].

4 nodes × 10 containers in a lab of real hosts on this machine. The limit is the Engine API on each node's own socket
(tests.bench.limit): the same create calls, as many at a time, and nothing else. Both are whole processes: start-up
counts. They take turns, so that what else the machine does hits both; read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import figures, load, publishing, reading, recovery
from tests.bench.figures import Row
from tests.bench.measure import Cost, run
from tests.bench.rounds import JOBS, Measured, play
from tests.bench.scene import Scene
from tests.lab import Lab

OTHERS = ("help", "core", "reading", "load", "publishing", "recovery")
ROUNDS = 3
STARTS = 20
FILES = 10_000
WORLDS = ((20, 1000), (1000, 20))

TARGETS = {"deploy": 1.15, "publish": 1.25, "change": 1.25, "delete": 1.25}
TITLES = {
    "deploy": "first deploy",
    "noop": "plan, nothing to do",
    "change": "one variable changed everywhere",
    "delete": "delete",
    "publish": "first deploy, published",
}


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    chosen = frozenset(options.only or (*JOBS, *OTHERS))
    rounds = 1 if options.quick else options.rounds
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="k4t-bench-") as temporary:
        directory = Path(temporary)
        if "help" in chosen:
            rows += _help(directory, 5 if options.quick else STARTS)
        if "core" in chosen:
            rows += _core(rounds)
        if "reading" in chosen:
            rows += _reading(directory, rounds)
        if "load" in chosen:
            rows += _load(directory / "load", quick=options.quick)
        if "publishing" in chosen:
            rows += publishing.measure(directory, quick=options.quick)
        if "recovery" in chosen:
            rows += recovery.measure(directory / "recovery", times=rounds)
        if chosen & set(JOBS):
            rows = _jobs(directory, chosen & set(JOBS), rounds, options.lab) + rows
    print(_machine())
    print(figures.table(rows), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how many rounds (default {ROUNDS})")
    parser.add_argument("--only", nargs="+", choices=[*JOBS, *OTHERS], help="only these figures")
    parser.add_argument("--lab", metavar="NAME", help="a lab that is up already: 4 nodes and a gateway's host")
    return parser


def _machine() -> str:
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; median (min-max)"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _jobs(directory: Path, jobs: frozenset[str], rounds: int, name: str | None) -> list[Row]:
    lab = Lab.attach(name) if name else Lab(name="bench", nodes=4, gateways=1, registry=True).up()
    try:
        measured = _play(lab, directory / "site", jobs, rounds)
    finally:
        if not name:
            lab.down()
    rows = []
    for job in (job for job in JOBS if job in jobs):
        ours, theirs = measured.k4t[job], measured.limit[job]
        if job == "noop":
            rows.append(figures.within(TITLES[job], ours, theirs, 0.35))
        else:
            rows.append(figures.beside(TITLES[job], ours, theirs, TARGETS[job]))
    return [*rows, figures.memory([cost for job in jobs for cost in measured.k4t[job]], 80e6)]


def _play(lab: Lab, directory: Path, jobs: frozenset[str], rounds: int) -> Measured:
    lab.pull()
    directory.mkdir()
    scene = Scene(lab, directory)
    scene.forget()
    if "publish" in jobs:
        scene.install()
        scene.hide_participants()
    scene.write()
    scene.k4t("plan")  # Python's byte code is written by now
    scene.limit("noop")
    measured = Measured()
    for number in range(rounds):
        _say(f"round {number + 1} of {rounds}")
        play(scene, jobs, measured, number)
    return measured


def _load(directory: Path, *, quick: bool) -> list[Row]:
    directory.mkdir()
    rows, said = load.measure(directory, quick=quick)
    _say(said)
    return rows


def _help(directory: Path, starts: int) -> list[Row]:
    script = str(Path(sys.executable).with_name("k4t"))
    log = directory / "help.log"
    ours: list[Cost] = []
    theirs: list[Cost] = []
    for _ in range(starts + 1):
        ours.append(run([script, "--help"], env=dict(os.environ), log=log))
        theirs.append(run([sys.executable, "-c", "pass"], env=dict(os.environ), log=log))
    return [figures.more_than("k4t --help beside python -c pass", ours[1:], theirs[1:], 0.12)]


def _core(rounds: int) -> list[Row]:
    rows = []
    for apps, replicas in WORLDS:
        _say(f"pure core, {apps:,} apps of {replicas:,} replicas")
        argv = [sys.executable, "-m", "tests.bench.core", str(apps), str(replicas), str(rounds)]
        found: dict[str, list[float]] = json.loads(subprocess.check_output(argv))
        rows += [
            figures.plain(f"pure core, {apps:,} apps x {replicas:,}: {kind}", seconds, 2.0)
            for kind, seconds in found.items()
        ]
    return rows


def _reading(directory: Path, rounds: int) -> list[Row]:
    """All of `k4t validate`, with the cost of a file at a tenth of the size beside it."""
    rows = []
    for files, most_s in ((FILES, 5.0), (FILES // 10, 0.8)):
        db = reading.write_tree(directory / f"apps{files}", files)
        words = [str(Path(sys.executable).with_name("k4t")), "--db", str(db), "validate"]
        costs: Sequence[Cost] = [
            run(words, env=dict(os.environ), log=directory / "validate.log") for _ in range(rounds)
        ]
        rows.append(figures.within(f"validate {files:,} app files", costs, (), most_s))
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
