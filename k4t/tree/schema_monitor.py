"""The table: monitor.xml. What a threshold may be is checked in `semantics_monitor`."""

from __future__ import annotations

from k4t.tree import values as v
from k4t.tree.table import attribute, element

THRESHOLD = element(
    "threshold",
    "When a measured value is worth a warning, and when it is critical. docs/monitor.md has what is measured, and what"
    " holds without a line here. `state` is whatever is not measured but right or wrong: it has no values.",
    attribute(
        "of",
        v.choice(
            "disk", "docker-disk", "memory", "cpu", "load", "clock-skew", "restarts", "backup-age", "lock-age",
            "certificate-expiry", "transaction-age", "state",
        ),
        "What is measured.",
        required=True,
    ),
    attribute(
        "warning", v.TEXT, "A share (disk, docker-disk, memory, cpu), a number (load, restarts), else a duration."
    ),
    attribute("critical", v.TEXT, "The same; both may be `never`."),
    attribute("after", v.POSITIVE, "It counts when so many checks saw it …"),
    attribute("of-last", v.POSITIVE, "… of the last so many; it is over when none of them did."),
    many=True,
    key="of",
)  # fmt: skip

POLICY = element(
    "policy",
    "What the monitor does by itself; each is off unless it is switched on. docs/acting.md has what each does.",
    attribute(
        "when",
        v.choice("node-gone", "node-back", "app-unhealthy", "disk-full", "nodes-short", "nodes-idle"),
        "What it reacts to.",
        required=True,
    ),
    attribute("enabled", v.BOOLEAN, "Whether it acts.", "false"),
    attribute("dry-run", v.BOOLEAN, "It only says what it would do.", "false"),
    attribute(
        "after",
        v.POSITIVE,
        "After so many checks in a row. Without it 3; `node-gone` 18, so that no host that only reboots is switched "
        "off. Its endpoints are taken out long before.",
    ),
    attribute("per-hour", v.POSITIVE, "At most so often an hour, each kind of action.", "2"),
    attribute(
        "max-nodes",
        v.PERCENT,
        "`node-gone`: never more than this share of the nodes at once; one may always be.",
        "20%",
    ),
    attribute("keep-nodes", v.COUNT, "`node-gone`, `nodes-idle`: never fewer nodes than this that serve.", "1"),
    attribute("above", v.PERCENT, "`nodes-short`: also when so much of CPU or memory is reserved.", "90%"),
    attribute("below", v.PERCENT, "`nodes-idle`: no more than this may be reserved of what would be left …", "60%"),
    attribute("for", v.PERIOD, "… for so long.", "30m"),
    many=True,
    key="when",
)

ALERT = element(
    "alert",
    "Who is told; exactly one of the three ways. docs/alerts.md has what is told, and how.",
    attribute("command", v.COMMAND, "A program that reads the alert, as JSON, on its standard input."),
    attribute("webhook", v.URL, "An address that gets it as JSON, by POST."),
    attribute("mail", v.EMAIL, "An e-mail address."),
    attribute("smtp", v.JUMP, "`mail` only: the mail server.", "localhost:25"),
    attribute("from", v.EMAIL, "`mail` only: the sender; else k4t at this machine."),
    attribute(
        "secret",
        v.NAMED,
        "Of a webhook: sent as `Authorization: Bearer`, or the whole address. Of a mail server: `user:password`.",
        refers="secrets",
    ),
    attribute("level", v.choice("warning", "critical"), "From which level on.", "warning"),
    attribute("group", v.DURATION, "How long to wait for more, to tell it together.", "30s"),
    attribute("repeat", v.PERIOD, "How often it is told again while it lasts.", "4h"),
    attribute("all-clear", v.BOOLEAN, "Whether the end is told too.", "true"),
    many=True,
)

MONITOR = element(
    "monitor",
    "Thresholds, policies, alerts.",
    attribute("interval", v.PERIOD, "Between two checks of `monitor run`.", "10s"),
    THRESHOLD,
    POLICY,
    ALERT,
)
