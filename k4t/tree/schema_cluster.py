"""The table, first part: cluster.xml, and the element that several files share."""

from __future__ import annotations

from k4t.tree import values as v
from k4t.tree.schema_app import APP
from k4t.tree.schema_hosts import NODE
from k4t.tree.schema_shared import ssh
from k4t.tree.table import Element, attribute, element

CLUSTER: Element = element(
    "cluster",
    "The cluster: one tree and its nodes.",
    attribute("name", v.NAMED, "The cluster's name, the first part of its containers' names.", required=True),
    attribute(
        "id", v.CLUSTER_ID, "Random, written by `k4t init`, never changed: it marks what is ours.", required=True
    ),
    attribute("format", v.FORMAT, "The format of the tree.", "1"),
    ssh("How to reach every host, where its own file doesn't say otherwise."),
    element(
        "variable",
        "A value that apps use as `${name}` in text and attributes; `$${` is a literal `${`.",
        attribute("name", v.VARIABLE_NAME, "The variable's name.", required=True),
        text=v.FREE,
        many=True,
        key="name",
    ),
    element(
        "defaults",
        "What every app and node has unless its own file says otherwise, element by element.",
        element("app", "Defaults of apps: anything that may stand in `app.xml`.", *APP.attributes[1:], *APP.children),
        element(
            "node", "Defaults of nodes: anything that may stand in a node's file.", *NODE.attributes[1:], *NODE.children
        ),
    ),
    element(
        "registry",
        "A registry that wants a login.",
        attribute("host", v.REGISTRY, "Its host and port, as image references write it.", required=True),
        attribute("user", v.TEXT, "The user to log in as.", required=True),
        attribute("secret", v.NAMED, "The secret that holds the password.", refers="secrets", required=True),
        many=True,
        key="host",
    ),
    element(
        "backup",
        "A place for copies of the tree; see docs/backup.md.",
        attribute("node", v.NAMED, "A node of this tree; or `host`.", refers="nodes"),
        attribute("host", v.LOGIN_HOST, "A host that is no node, `user@host:port`; or `node`. Else as `<ssh>` says."),
        attribute("every", v.PERIOD, "How often a copy is due.", "1h"),
        attribute("keep", v.POSITIVE, "How many versions are kept: an unchanged tree makes none.", "60"),
        attribute("keep-daily", v.COUNT, "How many more of the older ones are kept, one a day.", "0"),
        attribute(
            "encrypted", v.BOOLEAN, "`false`: whoever reads the copies reads the tree. Plans warn of it.", "true"
        ),
        many=True,
    ),
    element(
        "publication",
        "What to do when a gateway or DNS server can't be reached.",
        attribute(
            "when-unreachable",
            v.choice("refuse", "degrade"),
            "`refuse` starts nothing; `degrade` goes on without it.",
            "refuse",
        ),
    ),
    element(
        "safety",
        "From how much on a loss of endpoints needs `--allow`.",
        attribute("withdraw", v.PERCENT, "The share of a group's healthy endpoints.", "30%"),
        attribute("min", v.COUNT, "And at least this many endpoints.", "5"),
    ),
    element(
        "power",
        "The master's own power.",
        attribute("host", v.HOST, "The master's host, as it calls itself: no other machine is switched off."),
        attribute("on", v.POWER_COMMAND, "Switches it on, run elsewhere; `wol MAC [BROADCAST]` is built in."),
        attribute("off", v.COMMAND, "Switches it off."),
        attribute("after-apply", v.choice("stay", "off"), "What it does after an apply, when nothing is open.", "stay"),
    ),
)
