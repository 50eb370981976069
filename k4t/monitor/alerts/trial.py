"""A test message, every way at once, past queue and limits."""

from __future__ import annotations

import time
from collections.abc import Sequence

from k4t.errors import K4tError
from k4t.master.fleet import at_once
from k4t.model.monitor import Alert
from k4t.model.value import value
from k4t.monitor.alerts.deliver import SecretOf, deliver
from k4t.monitor.alerts.message import Message, Sender, identity


@value
class Tried:
    """`error` "" when it was taken."""

    alert: Alert
    took_s: float
    error: str = ""


def trial(alerts: Sequence[Alert], sender: Sender, secret_of: SecretOf, now_s: float) -> list[Tried]:
    """In the alerts' order."""

    def one(alert: Alert) -> Tried:
        message = Message(f"{identity(alert)}.test.{int(now_s)}", now_s, test=True, first_s=now_s)
        began_s, error = time.monotonic(), ""
        try:
            deliver(message, sender, alert, secret_of)
        except K4tError as failure:
            error = failure.words
        return Tried(alert, time.monotonic() - began_s, error)

    return at_once(one, list(alerts))
