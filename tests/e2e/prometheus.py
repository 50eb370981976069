"""A node exporter and a Prometheus of Debian's own, on ports of this machine, that live as long as their test."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CONFIG = """\
global:
  scrape_interval: 500ms
  evaluation_interval: 500ms
rule_files: [{rules}]
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]
"""
PATIENCE_S = 60.0


class Prometheus:
    """What it answers over HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expr: str) -> list[Mapping[str, Any]]:
        """The series of an instant query: each with `metric` and `value`."""
        return self.ask("/api/v1/query", query=expr)["result"]  # type: ignore[no-any-return]

    def firing(self) -> set[tuple[str, str]]:
        """Alerts that fire: their names, and what they are about."""
        found = [one["metric"] for one in self.query('ALERTS{alertstate="firing"}')]
        about = ("host", "app", "participant", "target", "name")
        return {(one["alertname"], next((one[key] for key in about if key in one), "")) for one in found}

    def ask(self, path: str, **words: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(words)}", timeout=20) as answer:  # noqa: S310 - http alone
            told = json.loads(answer.read())
        assert told["status"] == "success", told
        return told["data"]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Bounded, and no claim of how fast it is."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s, f"{what}; firing: {self.firing()}"
            time.sleep(0.2)

    def evaluated(self) -> None:
        """Every rule was evaluated several times since now, on what was scraped since now."""
        now_s = float(self.query("time()")[1])  # type: ignore[arg-type]
        self.until(lambda: self._evaluated_at() > now_s + 2.5, "no rule is evaluated")

    def _evaluated_at(self) -> float:
        """When the group that is furthest behind was evaluated last."""
        times = self.query("min(prometheus_rule_group_last_evaluation_timestamp_seconds)")
        return float(times[0]["value"][1]) if times else 0.0


@contextmanager
def running(directory: Path, textfiles: Path, rules: Path) -> Iterator[Prometheus]:
    """Both of them; everything of theirs is in `directory`, and they are gone afterwards."""
    exporter, port = _free_port(), _free_port()
    config = directory / "prometheus.yml"
    own = f'  - job_name: prometheus\n    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]\n'
    config.write_text(CONFIG.format(rules=rules, exporter=exporter) + own)
    exporting = [
        "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
        f"--collector.textfile.directory={textfiles}", f"--web.listen-address=127.0.0.1:{exporter}",
    ]  # fmt: skip
    serving = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=1h",
    ]  # fmt: skip
    with ExitStack() as ending:
        for argv in (exporting, serving):
            ending.enter_context(_process(argv, directory))
        found = Prometheus(port)
        deadline_s = time.monotonic() + PATIENCE_S
        while not _answers(found.url):
            assert time.monotonic() < deadline_s, (directory / "prometheus.log").read_text()
            time.sleep(0.1)
        yield found


@contextmanager
def _process(argv: list[str], directory: Path) -> Iterator[None]:
    """It ends with the test, also when that is killed."""
    with (directory / f"{argv[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:  # noqa: S310 - http alone
            return bool(answer.status == 200)
    except OSError:
        return False
