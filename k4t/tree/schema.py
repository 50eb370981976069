"""The one table: every element and attribute of every file of the tree.

From it come the checker (`check`), the XSD for editors (`xsd`) and the reference page (`reference`).
"""

from __future__ import annotations

from collections.abc import Mapping

from k4t.tree.schema_app import APP
from k4t.tree.schema_cluster import CLUSTER
from k4t.tree.schema_hosts import CERTIFICATE, DNS, GATEWAY, NODE, SECRET
from k4t.tree.schema_monitor import MONITOR
from k4t.tree.schema_recovery import RECOVERY
from k4t.tree.table import Element

FILES: Mapping[str, Element] = {
    "cluster.xml": CLUSTER,
    "nodes/NAME.xml": NODE,
    "apps/NAME/app.xml": APP,
    "gateways/NAME.xml": GATEWAY,
    "dns/NAME.xml": DNS,
    "certificates/NAME.xml": CERTIFICATE,
    "secrets/NAME.xml": SECRET,
    "monitor.xml": MONITOR,
    "recovery.xml": RECOVERY,
}
DIRECTORIES: Mapping[str, Element] = {
    "nodes": NODE,
    "gateways": GATEWAY,
    "dns": DNS,
    "certificates": CERTIFICATE,
    "secrets": SECRET,
}
HOOKS = ("pre-apply", "post-apply", "on-failure")
DEFAULTS_APP = CLUSTER.by_child["defaults"].by_child["app"]
DEFAULTS_NODE = CLUSTER.by_child["defaults"].by_child["node"]
