"""<alert>: who is told, by exactly one way, with nothing that belongs to another. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from k4t.errors import Finding
from k4t.model.monitor import HERE, Alert, smtp_place
from k4t.tree.check import Item, cut
from k4t.tree.semantics_app import finding

WAYS = ("command", "webhook", "mail")
ALERTS_MAX = 20
_MAILBOX = re.compile(r"[^@\s,;:<>()\[\]\\\"]{1,64}@[A-Za-z0-9_.\-]{1,253}")


def alert(item: Item, findings: list[Finding]) -> Alert | None:
    """None where it names no way, or several, which is then told."""
    values: dict[str, Any] = item.values
    ways = [way for way in WAYS if item.given.get(way)]
    if len(ways) != 1:
        message = f"<alert> names {' and '.join(ways) or 'nobody to tell'}, not exactly one way"
        findings.append(finding(item.where, "alert", message, f"write one of {', '.join(WAYS)}; one <alert> for each"))
        return None
    made = Alert(
        tuple(shlex.split(values["command"] or "")), values["webhook"] or "", values["mail"] or "", values["smtp"],
        values["from"] or "", values["secret"] or "", values["level"], values["group"], values["repeat"],
        values["all-clear"], item.where,
    )  # fmt: skip
    findings += [finding(item.where, "alert", *words) for words in _wrong(made, item.given)]
    return made


def check_alerts(alerts: Iterable[Alert]) -> Iterator[Finding]:
    """What contradicts each other."""
    told: dict[tuple[object, ...], Alert] = {}
    for number, one in enumerate(alerts, 1):
        first = told.setdefault((one.command, one.webhook, one.mail, one.level), one)
        if first is not one:
            message = f"this <alert> tells the same as another one, from the same level on ({first.where})"
            yield finding(one.where, "alert", message, "take one of them away")
        if number == ALERTS_MAX + 1:
            message = f"more than {ALERTS_MAX} alerts"
            yield finding(one.where, "alert", message, "let one of them tell the others: a list, a channel, a command")


Wrong = Iterator[tuple[str, str]]


def _wrong(made: Alert, given: dict[str, str]) -> Wrong:
    for name in ("smtp", "from"):
        if name in given and not made.mail:
            yield f"{name}= is for mail= alone", f"take {name}= away"
    if made.repeat_s < made.group_s:
        message = f"repeat={given.get('repeat', '4h')} is shorter than group={given.get('group', '30s')}"
        yield message, "what is told again waits longer than what is told first"
    yield from _wrong_command(made) if made.command else _wrong_webhook(made) if made.webhook else _wrong_mail(made)


def _wrong_command(made: Alert) -> Wrong:
    if made.secret:
        yield "secret= is for webhook= and mail= alone", "let the command fetch what it needs"
    program = made.command[0]
    if "/" in program and not program.startswith("/"):
        yield (
            f"the command {cut(program)} is looked for in /, where alerts run",
            "write its whole path, or its name alone",
        )


def _wrong_webhook(made: Alert) -> Wrong:
    """The address itself is not shown: it may be worth keeping."""
    try:
        parts = urlsplit(made.webhook)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = ""
    if not host or not made.webhook.isascii():
        yield "the webhook is no address that can be asked", "write for example https://example.com/hook"
        return
    if "@" in parts.netloc:
        yield "the webhook's address has a login in it, for everybody who reads the tree", "use secret="
    if made.secret and parts.scheme == "http" and host not in HERE:
        yield "the secret would go to the webhook in the clear", "write https://"


def _wrong_mail(made: Alert) -> Wrong:
    for name, text in (("mail", made.mail), ("from", made.sender)):
        if text and not _MAILBOX.fullmatch(text):
            yield f'{name}="{cut(text)}" is not one e-mail address', "write for example ops@example.com"
    try:
        smtp_place(made.smtp)
    except ValueError:
        yield f'smtp="{cut(made.smtp)}" is not a mail server', "write for example mail.example.com:587"
