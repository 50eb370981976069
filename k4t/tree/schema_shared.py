"""The table: elements that several files share."""

from __future__ import annotations

from k4t.tree import values as v
from k4t.tree.table import Element, attribute, element


def ssh(meaning: str) -> Element:
    return element(
        "ssh",
        meaning,
        attribute("host", v.HOST, "Where sshd listens; without it the host's `address`."),
        attribute("port", v.PORT, "Its port; without it as `~/.ssh/config` says, else 22."),
        attribute("user", v.LOGIN, "The login; without it as `~/.ssh/config` says."),
        attribute("key", v.TEXT, "The private key's file; without it the agent's keys and the usual files."),
        attribute("jump", v.JUMP, "Hosts to go through, `user@host:port`, separated by commas."),
        attribute(
            "sudo",
            v.BOOLEAN,
            "Whether commands run through `sudo -n`. The cluster's is `false` unless it says otherwise.",
        ),
        attribute(
            "connect-timeout", v.PERIOD, "How long a connection may take; 10s unless the cluster says otherwise."
        ),
    )


def power(meaning: str) -> Element:
    return element(
        "power",
        meaning,
        attribute("on", v.POWER_COMMAND, "Switches it on; `wol MAC [BROADCAST]` is built in."),
        attribute("off", v.COMMAND, "Switches it off; it is also the fence."),
        attribute(
            "spare",
            v.BOOLEAN,
            "A spare node: switched on when it is needed (it is drained until then), and off again when it is not. Not"
            " one that somebody repairs: take this away first.",
            "false",
        ),
    )


def script() -> Element:
    return element(
        "script",
        "Driver `script` only: the program run for one verb; `${app}`, `${ip}`, `${port}` … stand in its arguments.",
        attribute(
            "verb",
            v.NAMED,
            "`add` and `remove` (needed), `list`, `check`; gateways also `add-cluster`, `remove-cluster`, `add-route`, "
            "`remove-route`.",
            required=True,
        ),
        args("One argument; the first is the program."),
        many=True,
        key="verb",
    )


def args(meaning: str) -> Element:
    return element("arg", meaning, text=v.FREE, many=True)


def secret_env() -> Element:
    return element(
        "env",
        "An environment variable.",
        attribute("name", v.ENV_NAME, "Its name.", required=True),
        attribute("secret", v.NAMED, "The secret that holds its value, instead of text.", refers="secrets"),
        text=v.FREE,
        many=True,
        key="name",
    )
