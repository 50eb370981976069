"""An alert by a command: the message as JSON on its standard input, and what simple scripts want in K4T_* variables.

It runs in /, with no terminal, in a process group that ends with it, and with an environment of a few variables: those
of this program may hold secrets of the tree. Ended with 0, it has told."""

from __future__ import annotations

import json
import os
from pathlib import Path

from k4t import command
from k4t.errors import StepError
from k4t.model.monitor import Alert
from k4t.monitor.alerts.bound import Bound
from k4t.monitor.alerts.message import Message, Sender, as_json

PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
MAX_VARIABLE_BYTES = 64 * 1024


def send(message: Message, sender: Sender, alert: Alert, bound: Bound) -> None:
    """Raises StepError with its last words."""
    told = as_json(message, sender)
    done = command.fed(
        alert.command,
        json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n",
        env=_environment(told),
        directory=Path("/"),
        timeout_s=bound.within_s,
        is_over=lambda: bound.is_over,
    )
    if not done.ok:
        words = f": {done.words()[:200]}" if done.stdout.strip() else ""
        raise StepError(f"it ended with status {done.exit_status}{words}")


def _environment(told: dict[str, object]) -> dict[str, str]:
    found = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    open_ = told["open"]
    counts = open_ if isinstance(open_, dict) else {}
    said = {
        "ID": told["id"], "CLUSTER": told["cluster"], "CLUSTER_ID": told["cluster_id"], "LEVEL": told["level"],
        "SUBJECT": told["subject"], "TEXT": told["text"], "OPEN_CRITICAL": counts.get("critical", 0),
        "OPEN_WARNING": counts.get("warning", 0), "TEST": "true" if told["test"] else "false",
    }  # fmt: skip
    return found | {f"K4T_{name}": str(text).replace("\0", "")[:MAX_VARIABLE_BYTES] for name, text in said.items()}
