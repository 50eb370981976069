"""Chromium, driven by its own protocol through a pipe (--remote-debugging-pipe: JSON, a zero byte behind each message).

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
ANSWER_S = 60.0
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page. `requests`: every address that it asked for; `complaints`: what its console and its policy said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._number, self._rest, self._session = 0, b"", ""

    def __enter__(self) -> Self:
        there, self._out = os.pipe()
        self._in, back = os.pipe()
        argv = [PROGRAM, *QUIET, f"--user-data-dir={self.directory}", "about:blank"]
        script = f'exec 3<&{there} 4>&{back}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "sh", *argv], pass_fds=[there, back], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "HOME": str(self.directory)},
        )  # fmt: skip
        os.close(there)
        os.close(back)
        (target,) = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What it answers; what it tells meanwhile is taken down."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            found = self._message(deadline_s)
            if found.get("id") == self._number:
                assert "error" not in found, found
                answer: dict[str, Any] = found["result"]
                return answer
            self._heard(found)

    def show(self, file: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=file.as_uri())
        deadline_s = time.monotonic() + ANSWER_S
        while self.run("document.readyState") != "complete" or self.run("location.href") != file.as_uri():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9 if key == "Tab" else 13
            )

    def screenshot(self, file: Path) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def _message(self, deadline_s: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, "the browser does not answer"
            if select.select([self._in], [], [], left_s)[0]:
                data = os.read(self._in, 1 << 20)
                assert data, "the browser ended"
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def _heard(self, found: dict[str, Any]) -> None:
        about = found.get("params", {})
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif found.get("method") == "Log.entryAdded":
            self.complaints.append(about["entry"]["text"])
        elif found.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(about)[:500])
