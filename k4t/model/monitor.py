"""monitor.xml: when a measured value is worth a warning, and when it is critical; what the monitor may do by itself;
who is told. Shares are in per cent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from k4t.model.shared import NOWHERE, Where
from k4t.model.value import value

Measure = Literal[
    "disk", "docker-disk", "memory", "cpu", "load", "clock-skew", "restarts", "backup-age", "lock-age",
    "certificate-expiry", "transaction-age", "state",
]  # fmt: skip
When = Literal["node-gone", "node-back", "app-unhealthy", "disk-full", "nodes-short", "nodes-idle"]
Unit = Literal["%", "s", ""]
UNITS: Mapping[Measure, Unit] = {
    "disk": "%", "docker-disk": "%", "memory": "%", "cpu": "%", "load": "", "clock-skew": "s", "restarts": "",
    "backup-age": "s", "lock-age": "s", "certificate-expiry": "s", "transaction-age": "s", "state": "",
}  # fmt: skip
"""“state” is not measured: it is whatever is either right or wrong."""
LOWER_IS_WORSE = frozenset({"certificate-expiry"})
CHECKS_MAX = 60
WARNING, CRITICAL = 2, 3
"""As severities, which are 0 ok, 1 unknown, 2 warning, 3 critical."""


@value
class Threshold:
    """`warning`, `critical`: in the measure's unit; None is never. A finding is raised when the value was beyond a
    threshold in `after` of the last `of_last` checks, and is over when it was in none of them."""

    of: Measure
    warning: float | None
    critical: float | None
    after: int = 2
    of_last: int = 3
    where: Where = NOWHERE

    def severity(self, measured: float) -> int:
        for limit, found in ((self.critical, CRITICAL), (self.warning, WARNING)):
            if limit is not None and (measured <= limit if self.of in LOWER_IS_WORSE else measured >= limit):
                return found
        return 0


MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
DEFAULTS: Mapping[Measure, Threshold] = {
    one.of: one
    for one in (
        Threshold("disk", 85.0, 95.0),
        Threshold("docker-disk", 85.0, 95.0),
        Threshold("memory", 90.0, 97.0),
        Threshold("cpu", 95.0, None, 5, 6),
        Threshold("load", 4.0, 10.0, 5, 6),
        Threshold("clock-skew", 2.0, 30.0),
        Threshold("restarts", 3.0, 10.0),
        Threshold("backup-age", 3.0, 10.0),
        Threshold("lock-age", 30 * MINUTE, 2 * HOUR),
        Threshold("certificate-expiry", 14 * DAY, 3 * DAY),
        Threshold("transaction-age", 10 * MINUTE, HOUR),
        Threshold("state", None, None),
    )
}
"""Without a line in monitor.xml. Those of backup-age are times the target's own period."""
BACKUP_SLACK_S = 60.0
"""A copy may be this late before its age counts at all, however short its period is."""


AFTER = 3
AFTER_OF: Mapping[When, int] = {"node-gone": 18}
"""Checks in a row, where monitor.xml names no other number. Three minutes, with the default interval: a host that is
only rebooted is there again by then, and nobody switches it off meanwhile."""


@value
class Policy:
    """What the monitor does by itself. `after`: so many checks in a row; `per_hour`: at most so often;
    `max_nodes_percent`: of the nodes at once, but one may always be; `keep_nodes`: never fewer that serve. Of CPU and
    memory that replicas have reserved, the share `above_percent` of all is too much (nodes-short), and no more than
    `below_percent` of what would be left is little (nodes-idle), when it was so for `idle_s`."""

    when: When
    enabled: bool = False
    dry_run: bool = False
    after: int = AFTER
    per_hour: int = 2
    max_nodes_percent: float = 20.0
    keep_nodes: int = 1
    where: Where = NOWHERE
    above_percent: float = 90.0
    below_percent: float = 60.0
    idle_s: float = 30 * MINUTE


HERE = frozenset({"localhost", "127.0.0.1", "::1"})
"""Where a secret goes in the clear and leaves no machine."""


def smtp_place(text: str) -> tuple[str, int]:
    """Host and port of “mail.example.com:587”, “mail”, “[2001:db8::25]”. Raises ValueError."""
    found = re.fullmatch(r"([A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", text)
    if not found or not 1 <= int(found[2] or 25) <= 65535:
        raise ValueError(text)
    return found[1].strip("[]"), int(found[2] or 25)


@value
class Alert:
    """Who is told, by exactly one of `command` (an argument list), `webhook` (an address) and `mail`. `secret` names
    one of the tree's; `level`: from which on. `smtp` is host:port."""

    command: tuple[str, ...] = ()
    webhook: str = ""
    mail: str = ""
    smtp: str = "localhost:25"
    sender: str = ""
    secret: str = ""
    level: Literal["warning", "critical"] = "warning"
    group_s: float = 30.0
    repeat_s: float = 4 * HOUR
    all_clear: bool = True
    where: Where = NOWHERE


@value
class Monitor:
    """What monitor.xml says; a policy without a line is off."""

    interval_s: float = 10.0
    thresholds: Mapping[Measure, Threshold] = field(default_factory=dict)
    policies: Mapping[When, Policy] = field(default_factory=dict)
    alerts: tuple[Alert, ...] = ()

    def threshold(self, of: Measure) -> Threshold:
        return self.thresholds.get(of, DEFAULTS[of])

    def policy(self, when: When) -> Policy:
        return self.policies.get(when, Policy(when))

    def backup_age(self, every_s: float) -> Threshold:
        """Of a target with this period."""
        if "backup-age" in self.thresholds:
            return self.thresholds["backup-age"]
        default = DEFAULTS["backup-age"]
        periods = (default.warning or 0.0, default.critical or 0.0)
        warning_s, critical_s = (number * every_s + BACKUP_SLACK_S for number in periods)
        return dataclasses.replace(default, warning=warning_s, critical=critical_s)
