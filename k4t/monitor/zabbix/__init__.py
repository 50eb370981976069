"""What the monitor sees, for Zabbix 6.0 and newer: a template it imports, and the values of one check.

One item holds a check as one JSON document; everything else depends on it. `values` makes the document, `template` the
file, `sender` takes the document to a server or proxy.
"""

from __future__ import annotations

from k4t.monitor.zabbix.sender import send
from k4t.monitor.zabbix.template import template
from k4t.monitor.zabbix.values import values

__all__ = ["send", "template", "values"]
