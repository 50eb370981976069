"""What the monitor sees, for where people already look. Each kind has its own file beside this one."""

from __future__ import annotations

from k4t.commands.common import group
from k4t.commands.monitor import monitor_app

export_app = group("What the monitor sees, for Prometheus or Zabbix.")
monitor_app.add_typer(export_app, name="export")
