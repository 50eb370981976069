"""Gateways and DNS servers by themselves: who owns what, what is out of step, and who is gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.lab import Lab

pytestmark = pytest.mark.integration
ROUTED = '<route domain="web.k4t.lab"/><record name="web" ttl="1s"/><health interval="1s"><http path="/"/></health>'
STATE = "/var/lib/k4t/registrar"


def answers(lab: Lab) -> int:
    """How many replicas answer at the gateway; 0 when it knows no route."""
    got = [fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab") for _ in range(20)]
    return len({body.split()[0] for status, body in got if status == 200})


def names(lab: Lab) -> set[str]:
    address = lab.host("gw1").address
    return set(lab.host("gw1").exec(["/usr/bin/dig", "+short", f"@{address}", "web.k4t.lab"]).stdout.split())


def test_a_blank_gateway_is_refilled_from_what_runs(published: Site, lab: Lab) -> None:
    """Its state is lost, as on a host that was replaced: list says that it holds nothing, sync shows what comes, asks
    without a terminal for --yes, and fills it; no container is touched."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    before = [name for host in lab.nodes for name in containers(host)]
    gateway = lab.host("gw1")
    gateway.exec(["rm", "-rf", f"{STATE}/envoy/clusters", f"{STATE}/envoy/state.json"])
    published.k4t("gateway", "install")
    assert published.json("gateway", "list")["gateways"][0]["endpoints"] == []
    asked = published.k4t("gateway", "sync", status=64)
    assert "+ web " in asked.stdout
    assert "--yes" in asked.stderr
    done = published.k4t("gateway", "sync", "--yes")
    assert "replaced" in done.stdout
    assert answers(lab) == 2
    assert [name for host in lab.nodes for name in containers(host)] == before
    assert "in step" in published.k4t("gateway", "sync").stdout
    assert published.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")


def test_what_was_edited_by_hand_is_shown_and_healed(published: Site, lab: Lab) -> None:
    """plan, check and sync name what is served otherwise; sync puts it back."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    hosts = "/var/lib/k4t/dnsmasq/hosts/k4t"
    lab.host("gw1").exec(
        ["sh", "-c", f"sed 's/^[0-9.]* /10.9.9.9 /' {hosts} >/tmp/k4t.edited && cp /tmp/k4t.edited {hosts}"]
    )
    assert "10.9.9.9" in names(lab)
    assert "10.9.9.9" in published.k4t("plan").stdout
    assert "10.9.9.9" in published.k4t("dns", "check", status=1).stdout
    healed = published.k4t("dns", "sync", "--yes")
    assert "10.9.9.9" in healed.stdout
    assert names(lab) == {host.address for host in lab.nodes}


def test_a_cluster_that_is_gone_is_taken_over(published: Site, lab: Lab, tmp_path: Path) -> None:
    """What it published goes when somebody says so, and only that; one that comes back finds itself overtaken, and
    publishes anew what it runs."""
    (tmp_path / "old").mkdir()
    old = Site(lab, tmp_path / "old", name="old")
    old.node(lab.host("n1"))
    old.gateway(lab.host("gw1"))
    old.app("relic", port=9090, more='<route domain="relic.k4t.lab"/>')
    old.k4t("apply", "--yes")
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    rows = published.json("gateway", "list")["gateways"][0]["endpoints"]
    assert {row["owner"] for row in rows} == {"prod", "old"}
    unknown = published.k4t("gateway", "takeover", "nobody", "--yes", status=64)
    assert f"old ({old.id})" in unknown.stderr
    assert "relic" not in published.k4t("gateway", "takeover", "old", status=64).stdout
    published.k4t("gateway", "takeover", "old", "--yes")
    rows = published.json("gateway", "list")["gateways"][0]["endpoints"]
    assert {row["owner"] for row in rows} == {"prod"}
    assert fetch(f"http://{lab.host('gw1').address}/", "relic.k4t.lab")[0] == 404
    assert answers(lab) == 2
    old.k4t("apply", "--yes")
    assert fetch(f"http://{lab.host('gw1').address}/", "relic.k4t.lab")[0] == 200
    assert published.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")


def test_list_shows_manual_entries_and_withdrawals(published: Site, lab: Lab) -> None:
    """Beside the clusters' endpoints: what was added on the host, and what was taken out, by whom and why. A gateway
    that can't be asked is unknown, not empty."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    gateway = lab.host("gw1")
    by_hand = ["/usr/local/bin/k4t-registrar", "--driver", "envoy"]
    gateway.exec([*by_hand, "add", "--cname", "printer", "--ip", "10.9.9.9", "--port", "631"], check=False)
    out = ["withdraw", "--cname", "web", "--ip", lab.host("n1").address, "--port", "8080", "--why", "it burns"]
    gateway.exec([*by_hand, *out], check=False)
    rows = json.loads(published.k4t("gateway", "list", "-o", "json").stdout)["gateways"][0]["endpoints"]
    assert {row["owner"] for row in rows if row["app"] == "printer"} == {"manual"}
    assert [row["withdrawn"] for row in rows if row["ip"] == lab.host("n1").address] == ["root: it burns"]
    assert "withdrawn by root: it burns" in published.k4t("gateway", "list").stdout
    assert "is withdrawn by root: it burns" in published.k4t("status").stdout
    gateway.cut()
    try:
        away = published.k4t("gateway", "list")
        assert "what gw1 holds is unknown" in away.stderr
        assert published.json("gateway", "list")["gateways"][0]["endpoints"] is None
    finally:
        gateway.restore()
