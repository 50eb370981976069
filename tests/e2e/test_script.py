"""Gateways and DNS servers by the operator's own commands: the worked example of docs/gateways.md on a real Envoy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, fetch
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
SCRIPTS = Path(__file__).resolve().parents[2] / "docs/envoy-scripts"
HERE = "/etc/envoy-scripts"
ROUTED = '  <route domain="example.com"/>\n  <record name="web" ttl="1s"/>'
WORDS = {
    "add-cluster": ("add-cds.sh", "-cname ${app}"),
    "add": ("add-eds.sh", "-cname ${app} -ip ${ip} -port ${port}"),
    "add-route": ("add-rds.sh", "-cname ${app} -prefix ${prefix} -domains ${domains}"),
    "remove-route": ("del-rds.sh", "-cname ${app} -prefix ${prefix} -domains ${domains}"),
    "remove": ("del-eds.sh", "-cname ${app} -ip ${ip} -port ${port}"),
    "remove-cluster": ("del-cds.sh", "-cname ${app}"),
    "list": ("list.sh", ""),
}
NAMES = """\
#!/bin/sh
# add|remove NAME IP TTL, list: a hosts file of the operator's own.
file=/srv/names; touch $file
case $1 in
  add) grep -qxF "$3 $2" $file || echo "$3 $2" >> $file ;;
  remove) grep -vxF "$3 $2" $file > $file.new; mv $file.new $file ;;
  list) sed 's/^\\([^ ]*\\) \\(.*\\)/\\2 \\1/' $file ;;
esac
"""


def gateway(host: Host, *, last: str = "") -> str:
    verbs = []
    for verb, (script, words) in WORDS.items():
        arguments = "".join(f"<arg>{word}</arg>" for word in (f"{HERE}/{script}", *words.split()))
        verbs.append(f'  <script verb="{verb}">{arguments}</script>\n')
    return f'<gateway driver="script" address="{host.address}">\n{"".join(verbs)}{last}</gateway>\n'


@pytest.fixture
def own(site: Site, lab: Lab) -> Iterator[Host]:
    """A host with an Envoy and a names file that are the operator's, and the commands that change them."""
    host = lab.host("gw1")
    host.exec(["mkdir", "-p", HERE, "/srv"])
    for path in SCRIPTS.iterdir():
        host.exec(["sh", "-c", f"cat > {HERE}/{path.name}; chmod 755 {HERE}/{path.name}"], input=path.read_text())
    host.exec(["sh", "-c", "cat > /srv/names.sh; chmod 755 /srv/names.sh"], input=NAMES)
    host.exec(["sh", "-c", f". {HERE}/lib.sh; say_clusters; say_routes"])
    host.spawn("envoy", ["envoy", "-c", f"{HERE}/bootstrap.json", "--log-level", "warning", "--disable-hot-restart"])
    site.write("gateways/gw1.xml", gateway(host))
    told = "".join(
        f'<script verb="{verb}"><arg>/srv/names.sh</arg><arg>{verb}</arg>{words}</script>'
        for verb, words in (
            ("add", "<arg>${name}</arg><arg>${ip}</arg><arg>${ttl_s}</arg>"),
            ("remove", "<arg>${name}</arg><arg>${ip}</arg>"),
            ("list", ""),
        )
    )
    site.write("dns/names.xml", f'<dns driver="script" address="{host.address}" zone="k4t.lab">{told}</dns>\n')
    yield host
    host.stop("envoy")
    host.exec(["sh", "-c", f"rm -rf /var/lib/k4t /var/lib/envoy-scripts {HERE} /srv/names*"])


def served(host: Host) -> list[str]:
    """`NAME IP PORT` of what the real Envoy has."""
    return sorted(host.exec([f"{HERE}/list.sh"]).stdout.split("\n")[:-1])


def answers(host: Host, domain: str = "example.com") -> int:
    """The status of a request through it, once routes have arrived."""
    deadline = time.monotonic() + 10
    while (status := fetch(f"http://{host.address}/", domain)[0]) != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    return status


def names(host: Host) -> list[str]:
    return sorted(host.exec(["cat", "/srv/names"]).stdout.split("\n")[:-1])


def test_the_worked_example(site: Site, lab: Lab, own: Host) -> None:
    """Install, publish, a second replica, traffic; a hand that takes one out is told and healed; all goes again."""
    site.k4t("gateway", "install")
    assert "its commands are run by k4t: add, list, remove" in site.k4t("dns", "install").stdout
    assert "nothing to do" in site.k4t("gateway", "install").stdout
    site.app("web", replicas=1, more=ROUTED)
    site.k4t("apply", "--yes")
    (first,) = served(own)
    assert answers(own) == 200
    assert names(own) == [f"{first.split()[1]} web.k4t.lab"]
    site.app("web", replicas=2, more=ROUTED)
    site.k4t("apply", "--yes")
    assert served(own) == sorted(f"web {lab.host(name).address} 8080" for name in ("n1", "n2"))
    status = site.json("status")
    assert [one["in_step"] for one in (*status["gateways"], *status["dns"])] == [True, True]

    own.exec([f"{HERE}/del-eds.sh", "-cname", "web", "-ip", lab.host("n2").address, "-port", "8080"])
    said = site.json("status")["gateways"][0]["differences"]
    assert said == [f"web.main {lab.host('n2').address}:8080 is not listed"] or "http" in said[0]
    site.k4t("apply", "--yes")
    assert len(served(own)) == 2
    assert "ok   script: serves what it was told" in site.k4t("gateway", "check").stdout

    site.k4t("app", "remove", "web", "--yes")
    assert served(own) == []
    assert names(own) == []
    left = own.exec(["sh", "-c", "cd /var/lib/envoy-scripts; find clusters routes endpoints eds -mindepth 1"])
    assert left.stdout == ""


def test_envoy_is_off(site: Site, own: Host) -> None:
    """A command that fails is the vendor's refusal, in its words: exit 3; the next apply goes on."""
    site.k4t("gateway", "install")
    site.k4t("dns", "install")
    site.app("web", replicas=1, more=ROUTED)
    own.stop("envoy")
    done = site.k4t("apply", "--yes", status=None)
    assert done.returncode in (1, 3), done.stderr
    assert "Envoy does not answer at 127.0.0.1:9901 (exit status 1)" in done.stdout + done.stderr
    own.spawn("envoy", ["envoy", "-c", f"{HERE}/bootstrap.json", "--log-level", "warning", "--disable-hot-restart"])
    time.sleep(1)
    site.k4t("apply", "--yes")
    assert answers(own) == 200


def test_what_plan_says(site: Site, own: Host) -> None:
    """What no command is told of is refused by file and line; other commands than those set up there are not run."""
    site.k4t("gateway", "install")
    site.k4t("dns", "install")
    site.app("web", more='  <route domain="example.com" affinity="cookie"/>')
    refused = site.k4t("plan", status=65).stderr
    assert "the route of web asks for affinity, which gw1 (script) can't do" in refused
    assert "apps/web/app.xml:" in refused
    site.app("web", more=ROUTED)
    site.write("gateways/gw1.xml", gateway(own, last='  <script verb="check"><arg>true</arg></script>\n'))
    done = site.k4t("apply", "--yes", status=None)
    assert done.returncode not in (0, 2)
    assert "are not those that were set up there" in done.stdout + done.stderr
    assert served(own) == []
    assert "wrote /var/lib/k4t/registrar/script/config.json" in site.k4t("gateway", "install").stdout
    site.k4t("apply", "--yes")
    assert answers(own) == 200
