"""Trees of many app files, for `k4t validate`."""

from __future__ import annotations

from pathlib import Path

CLUSTER = '<cluster name="bench" id="benchmrk" format="1"><variable name="domain">example.com</variable></cluster>\n'
APP = """\
<app replicas="2">
  <image>registry.example.com/app{number}:1.4</image>
  <port name="http" host="auto"/>
  <env name="DOMAIN">app{number}.${{domain}}</env>
  <resources memory="64MiB" cpus="0.25"/>
  <health interval="5s"><http port="http" path="/healthz"/></health>
  <placement><spread by="zone"/></placement>
  <route port="http" domain="app{number}.${{domain}}"/>
  <record type="srv" port="http"/>
</app>
"""


def write_tree(directory: Path, apps: int) -> Path:
    """A valid tree of three nodes, a gateway, a DNS server and many apps."""
    db = directory / "db"
    files = {
        "cluster.xml": CLUSTER,
        "gateways/gw1.xml": '<gateway driver="envoy" address="10.0.0.21" http="80"/>\n',
        "dns/dns1.xml": '<dns driver="dnsmasq" address="10.0.0.22" zone="example.com"/>\n',
    }
    for number in range(3):
        files[f"nodes/node{number}.xml"] = f'<node address="10.0.0.{11 + number}"><label name="zone">z</label></node>\n'
    for number in range(apps):
        files[f"apps/app{number}/app.xml"] = APP.format(number=number)
    for name, text in files.items():
        path = db / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return db
