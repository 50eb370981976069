"""The client as a process of its own, beside what is done meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.load.report import Report

LONGEST_S = 3600
END_S = 120


class Load:
    """Traffic for as long as the block lasts; then `report` says what became of it."""

    def __init__(
        self,
        save: Path,
        *,
        targets: Sequence[str] = (),
        hosts: Sequence[str],
        rate_per_s: int,
        timeout_s: float = 10,
        resolver: str = "",
        port: int = 80,
    ) -> None:
        """`resolver`: ADDRESS:PORT of the DNS server that says where hosts are, instead of `targets`."""
        self._save = save
        words = [word for target in targets for word in ("--target", target)]
        words += [word for host in hosts for word in ("--host", host)]
        words += ["--resolver", resolver, "--port", str(port)] if resolver else []
        self._argv = [
            sys.executable, "-m", "tests.load", *words, "--rate", str(rate_per_s), "--duration", str(LONGEST_S),
            "--timeout", str(timeout_s), "--save", str(save),
        ]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        assert self._process.stderr.readline() == "sending\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            out, said = process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        if process.returncode not in (0, 1):
            raise RuntimeError(f"the client ended with {process.returncode}:\n{out}{said}")

    @property
    def report(self) -> Report:
        """After the block."""
        return Report.load(self._save)
