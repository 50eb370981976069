"""One message, one way, bounded: the secret is fetched, the way is chosen, and no value of a secret gets into words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import PurePath

from k4t.errors import K4tError, StepError
from k4t.model.monitor import Alert
from k4t.monitor.alerts.bound import Bound
from k4t.monitor.alerts.message import Message, Sender

WITHIN_S = 30.0
HIDDEN = "•••"

SecretOf = Callable[[str], str]


def label(alert: Alert) -> str:
    """Whom it tells, without what may be secret: “mail ops@example.com”, “webhook https://hooks.example.com”."""
    if alert.mail:
        return f"mail {alert.mail}"
    if alert.webhook:
        from k4t.monitor.alerts.webhook import place

        return f"webhook {place(alert.webhook)}"
    return f"command {PurePath(alert.command[0]).name}"


def deliver(message: Message, sender: Sender, alert: Alert, secret_of: SecretOf, within: Bound | None = None) -> None:
    """Raises K4tError when it was not taken, or nobody knows whether it was."""
    secret, bound = "", within or Bound(WITHIN_S)
    try:
        secret = secret_of(alert.secret) if alert.secret else ""
        with bound:
            _by_its_way(message, sender, alert, secret, bound)
    except K4tError as error:
        if bound.is_cut:
            raise StepError("cut short, as the monitor ends") from None
        raise StepError(without(secret, error.message), without(secret, error.remedy)) from None
    except Exception as error:  # noqa: BLE001 - a fault in one way must not silence the others
        raise StepError(f"failed: {type(error).__name__}") from None


def _by_its_way(message: Message, sender: Sender, alert: Alert, secret: str, bound: Bound) -> None:
    if alert.mail:
        from k4t.monitor.alerts import mail

        mail.send(message, sender, alert, secret, bound)
    elif alert.webhook:
        from k4t.monitor.alerts import webhook

        webhook.send(message, sender, alert, secret, bound)
    else:
        from k4t.monitor.alerts import program

        program.send(message, sender, alert, bound)


def without(secret: str, words: str) -> str:
    """A server may say back what it was sent."""
    for part in sorted({secret, secret.partition(":")[2]}, key=len, reverse=True):
        words = words.replace(part, HIDDEN) if len(part) > 2 else words
    return words


class Delivery:
    """One that is under way, in a thread of its own. `is_done`, then `error` ("" when it was taken)."""

    def __init__(
        self, message: Message, sender: Sender, alert: Alert, secret_of: SecretOf, done: Callable[[Delivery], None]
    ) -> None:
        self.message = message
        self.alert = alert
        self.error = ""
        self._bound = Bound(WITHIN_S)
        self._told = (message, sender, alert, secret_of, self._bound)
        self._done = done
        self._thread = threading.Thread(target=self._run, name=label(alert), daemon=True)

    def start(self) -> None:
        """Raises RuntimeError when this machine has no thread left."""
        self._thread.start()

    def wait(self, within_s: float) -> bool:
        """Whether it is over, or never began."""
        if self._thread.ident is None:
            return True
        self._thread.join(max(0.0, within_s))
        return not self._thread.is_alive()

    def end(self) -> None:
        self._bound.cut()

    def _run(self) -> None:
        try:
            deliver(*self._told)
        except K4tError as error:
            self.error = error.words
        self._done(self)
