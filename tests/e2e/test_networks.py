"""Every network mode end to end: who can reach what where, and that nothing is handed out twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k4t.registrar.dnsquery import resolve
from tests.e2e.conftest import wipe
from tests.e2e.site import Site, containers, fetch
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration

OWN = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <network mode="{mode}"/>
  <port name="http" container="8080"/>
  <env name="VER">{version}</env>
{more}
  <update drain="0s"/>
  <stop grace="1s"/>
</app>
"""
ROUTE = '  <route port="http" domain="web.k4t.lab"/>\n  <record name="web" ttl="1s"/>'
ROUNDS = 4 if "K4T_FULL" in os.environ else 2


def own(
    site: Site, name: str = "web", *, replicas: int = 1, version: int = 1, more: str = "", mode: str = "macvlan"
) -> None:
    site.write(
        f"apps/{name}/app.xml",
        OWN.format(replicas=replicas, image=site.lab.image, mode=mode, version=version, more=more),
    )


def prefix(lab: Lab) -> str:
    return lab.host("n1").address.rpartition(".")[0]


def pool(lab: Lab, first: int, last: int, *, gateway: bool = True) -> str:
    net = prefix(lab)
    leads_out = f' gateway="{net}.254"' if gateway else ""
    return f'<addresses range="{net}.{first}-{net}.{last}" interface="eth0" subnet="{net}.0/24"{leads_out}/>'


def inspected(host: Host, name: str) -> Any:
    return json.loads(host.docker(["inspect", name]).stdout)[0]


def endpoints(site: Site, app: str = "web") -> list[tuple[str, int]]:
    status = site.json("status")
    return sorted(
        (one["ip"], one["port"]) for found in status["apps"] if found["name"] == app for one in found["endpoints"]
    )


def answers(host: Host, url: str) -> bool:
    script = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2).read()"
    return host.exec(["python3", "-c", script, url], check=False).returncode == 0


@pytest.fixture
def pooled(published: Site, lab: Lab) -> Iterator[Site]:
    """Both nodes have addresses to give; the networks are gone afterwards."""
    published.node(lab.host("n1"), inside=pool(lab, 100, 109))
    published.node(lab.host("n2"), inside=pool(lab, 110, 119, gateway=False))
    yield published
    for host in lab.nodes:
        names = containers(host)
        if names:
            host.docker(["rm", "-f", *names])
        host.exec(["sh", "-c", "docker network ls -q --filter name=k4t- | xargs -r docker network rm"])


def test_macvlan_containers_serve_behind_the_gateway(pooled: Site, lab: Lab) -> None:
    """Each has an address of its node's pool; Envoy and DNS lead to these; an update changes nothing of that."""
    own(pooled, replicas=4, more=ROUTE)
    pooled.k4t("apply", "--yes")
    net = prefix(lab)
    expected = [(f"{net}.{last}", 8080) for last in (100, 101, 110, 111)]
    assert endpoints(pooled) == expected
    gateway = lab.host("gw1")
    pages = {fetch(f"http://{gateway.address}/", "web.k4t.lab")[1] for _ in range(40)}
    assert len(pages) == 4, "every replica answers"
    assert ("ADDRESS=" + expected[0][0]) in inspected(lab.host("n1"), "prod.web.0.1")["Config"]["Env"]
    assert pooled.json("plan")["steps"] == []
    (shown,) = pooled.json("status")["apps"]
    assert (shown["healthy"], shown["desired"]) == (4, 4)

    own(pooled, replicas=4, version=2, more=ROUTE)
    pooled.k4t("apply", "--yes")
    assert len(endpoints(pooled)) == 4
    pages = {fetch(f"http://{gateway.address}/", "web.k4t.lab")[1] for _ in range(40)}
    assert len(pages) == 4
    assert all("version=2" in page for page in pages)
    held = [inspected(h, name)["Config"]["Labels"]["io.k4t.address"] for h in lab.nodes for name in containers(h)]
    assert sorted(held) == [ip for ip, _ in endpoints(pooled)]


def test_a_pinned_address_is_kept_for_its_replica(pooled: Site, lab: Lab) -> None:
    """Another app that is created first doesn't get it; an update gives it from the old container to the new one."""
    net = prefix(lab)
    pin = f'  <placement><pin replica="0" node="n1" address="{net}.100"/></placement>'
    own(pooled, "zdb", more=pin + "\n  <depends on='web'/>")
    own(pooled, "web", replicas=2)
    pooled.k4t("apply", "--yes")
    assert endpoints(pooled, "web") == [(f"{net}.101", 8080), (f"{net}.110", 8080)]
    assert endpoints(pooled, "zdb") == [(f"{net}.100", 8080)]
    own(pooled, "zdb", version=2, more=pin)
    path = pooled.db / "apps" / "zdb" / "app.xml"
    path.write_text(path.read_text().replace("<update ", '<update max-unavailable="1" '))
    pooled.k4t("apply", "--yes")
    assert endpoints(pooled, "zdb") == [(f"{net}.100", 8080)]
    assert containers(lab.host("n1")) == ["prod.web.0.1", "prod.zdb.0.2"]


def test_an_exhausted_pool_is_said_by_the_plan(pooled: Site, lab: Lab) -> None:
    """What has an address is done; the rest is named with its reason, exit 3."""
    pooled.node(lab.host("n1"), inside=pool(lab, 100, 100))
    pooled.node(lab.host("n2"))
    own(pooled, replicas=2)
    plan = pooled.json("plan", status=3)
    assert plan["unschedulable"][0]["reasons"] == [
        "1 of 2 nodes: address pool exhausted",
        "1 of 2 nodes: no address range",
    ]
    pooled.k4t("apply", "--yes", status=3)
    assert endpoints(pooled) == [(f"{prefix(lab)}.100", 8080)]
    said = pooled.k4t("explain", "web").stdout
    assert "a wider <addresses range> for n1" in said
    assert "not healthy" not in said, "it is asked from another host as well"


def test_an_interface_that_is_not_there_is_found_by_the_check(site: Site, lab: Lab) -> None:
    """`node check` names it and the line, before a container needs it."""
    site.node(lab.host("n1"), inside=pool(lab, 100, 109).replace('"eth0"', '"eth7"'))
    site.node(lab.host("n2"), inside=pool(lab, 110, 119))
    said = site.k4t("node", "check", status=1).stdout
    assert "no interface eth7" in said
    assert "nodes/n1.xml:1" in said
    assert "interface eth0" in said


def test_a_lone_host_can_not_probe_its_own(site: Site, lab: Lab) -> None:
    """The plan says so, and that it runs for 5 s is what counts then."""
    (site.db / "nodes" / "n2.xml").unlink()
    site.node(lab.host("n1"), inside=pool(lab, 100, 109))
    own(site)
    assert any(
        "web is not probed: a host can't reach its own macvlan" in line for line in site.json("plan")["warnings"]
    )
    site.k4t("apply", "--yes")
    assert endpoints(site) == [(f"{prefix(lab)}.100", 8080)]


def test_addresses_are_in_the_plan_that_is_printed_as_commands(pooled: Site, lab: Lab) -> None:
    """bash makes the networks and the containers; then there is nothing to do."""
    shutil.copy(lab.known_hosts, pooled.db / "known_hosts")
    own(pooled, replicas=3)
    lines = pooled.k4t("plan", "--commands").stdout
    done = subprocess.run(["bash", "-s"], input=lines, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{lines}"
    assert pooled.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")
    assert endpoints(pooled) == [(f"{prefix(lab)}.{last}", 8080) for last in (100, 101, 110)]
    own(pooled, replicas=4)
    pooled.k4t("apply", "--yes")  # k4t takes the networks for its own


def test_bridge_ports_are_bound_to_the_service_address_alone(published: Site, lab: Lab) -> None:
    """auto and a number: reached on the node's address and through Envoy, on no other address of the node."""
    published.write(
        "apps/web/app.xml",
        f"<app replicas='2'><image>{lab.image}</image><network mode='bridge' resolvers='10.0.0.53' search='k4t.lab'/>"
        "<port name='http' container='8080' host='auto'/><port name='admin' container='8081' host='9000'/>"
        "<health><tcp port='http'/></health><route port='http' domain='web.k4t.lab'/>"
        "<update max-unavailable='1' drain='0s'/><stop grace='1s'/></app>",
    )
    published.k4t("apply", "--yes")
    found = [(ip, port) for ip, port in endpoints(published) if port != 9000]
    assert found == [(lab.host("n1").address, 20000), (lab.host("n2").address, 20000)]
    assert fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[0] == 200
    node, asker = lab.host("n1"), lab.host("gw1")
    other = f"{prefix(lab)}.77"
    node.exec(["ip", "address", "add", f"{other}/24", "dev", "eth0"])
    try:
        assert answers(asker, f"http://{node.address}:20000/")
        assert not answers(asker, f"http://{other}:20000/")
        assert not answers(node, "http://127.0.0.1:20000/")
        assert not answers(asker, f"http://[{node.address6}]:20000/")
    finally:
        node.exec(["ip", "address", "del", f"{other}/24", "dev", "eth0"])
    sockets = node.exec(["ss", "-Hltn"]).stdout
    bound = [line.split()[3] for line in sockets.splitlines() if re.search(r":(20000|9000)\s", line)]
    assert sorted(bound) == sorted([f"{node.address}:20000", f"{node.address}:9000"])
    resolv = node.docker(["exec", "prod.web.0.1", "cat", "/etc/resolv.conf"]).stdout
    assert "nameserver 10.0.0.53" in resolv
    assert "search k4t.lab" in resolv


def test_none_is_no_network(site: Site, lab: Lab) -> None:
    """Nothing but its loopback; it runs, and that is its health."""
    site.write(
        "apps/worker/app.xml",
        f"<app><image>{lab.image}</image><network mode='none'/><stop grace='1s'/></app>",
    )
    site.k4t("apply", "--yes")
    host = next(one for one in lab.nodes if containers(one))
    assert list(inspected(host, "prod.worker.0.1")["NetworkSettings"]["Networks"]) == ["none"]
    assert not any("ADDRESS=" in one for one in inspected(host, "prod.worker.0.1")["Config"]["Env"])
    assert site.json("plan")["steps"] == []


@pytest.mark.parametrize("mode", ["host", "bridge"])
def test_a_node_with_an_ipv6_address_alone_serves(published: Site, lab: Lab, mode: str) -> None:
    """Envoy sends traffic over IPv6, dnsmasq gives AAAA records, the node is reached for work over IPv4."""
    node = lab.host("n1")
    (published.db / "nodes" / "n2.xml").unlink()
    published.write("nodes/n1.xml", f'<node address="{node.address6}"><ssh host="{node.address}"/></node>\n')
    port = "host='auto'" if mode == "host" else "container='8080' host='20005'"
    record = "" if mode == "host" else "<record name='web' ttl='1s'/>"
    published.write(
        "apps/web/app.xml",
        f"<app><image>{lab.image}</image><network mode='{mode}'/><port name='http' {port}/>"
        f"<route port='http' domain='web.k4t.lab'/>{record}<health><http port='http'/></health>"
        "<update max-unavailable='1' drain='0s'/><stop grace='1s'/></app>",
    )
    published.k4t("apply", "--yes")
    assert endpoints(published) == [(node.address6, 20000 if mode == "host" else 20005)]
    assert fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[0] == 200
    status = published.json("status")
    assert all(one["in_step"] for one in (*status["gateways"], *status["dns"]))
    assert published.json("plan")["steps"] == []
    if record:
        assert resolve((lab.host("gw1").address, 53), "web.k4t.lab", "AAAA") == {node.address6}


def test_a_node_with_both_families_publishes_on_both(site: Site, lab: Lab) -> None:
    """A bridge port answers on either address of the node."""
    node = lab.host("n1")
    (site.db / "nodes" / "n2.xml").unlink()
    site.write("nodes/n1.xml", f'<node address="{node.address} {node.address6}"><ssh host="{node.address}"/></node>\n')
    site.write(
        "apps/web/app.xml",
        f"<app><image>{lab.image}</image><network mode='bridge'/><port name='http' container='8080' host='auto'/>"
        "<stop grace='1s'/></app>",
    )
    site.k4t("apply", "--yes")
    assert endpoints(site) == [(node.address, 20000)]
    assert answers(lab.host("gw1"), f"http://{node.address}:20000/")
    assert answers(lab.host("gw1"), f"http://[{node.address6}]:20000/")


@pytest.mark.parametrize("mode", ["host", "bridge"])
def test_a_node_with_both_families_is_named_by_both(published: Site, lab: Lab, mode: str) -> None:
    """DNS has the A and the AAAA record, and loses both; a gateway has one endpoint a replica. An address that is added
    to the node later is added to DNS."""
    node, names = lab.host("n1"), (lab.host("gw1").address, 53)
    (published.db / "nodes" / "n2.xml").unlink()
    both = f'<node address="{node.address} {node.address6}"><ssh host="{node.address}"/></node>\n'
    published.write("nodes/n1.xml", both if mode == "bridge" else f'<node address="{node.address}"/>\n')
    port = "container='8080'" if mode == "host" else "container='8080' host='20005'"
    text = (
        f"<app><image>{lab.image}</image><network mode='{mode}'/><port name='http' {port}/>"
        "<env name='PORT'>8080</env><env name='VER'>VERSION</env>"
        "<route port='http' domain='web.k4t.lab'/><record name='web' ttl='1s'/><health><http port='http'/></health>"
        "<update max-unavailable='1' drain='0s'/><stop grace='1s'/></app>"
    )
    published.write("apps/web/app.xml", text.replace("VERSION", "1"))
    published.k4t("apply", "--yes")
    if mode == "host":
        assert resolve(names, "web.k4t.lab", "AAAA") == set()
        published.write("nodes/n1.xml", both)
        assert {step["action"] for step in published.json("plan")["steps"]} == {"await", "publish"}
        published.k4t("apply", "--yes")
    for version in ("1", "2"):
        published.write("apps/web/app.xml", text.replace("VERSION", version))
        published.k4t("apply", "--yes")
        assert resolve(names, "web.k4t.lab", "A") == {node.address}
        assert resolve(names, "web.k4t.lab", "AAAA") == {node.address6}
        assert endpoints(published) == [(node.address, 8080 if mode == "host" else 20005)]
        assert f"version={version}" in fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[1]
        assert published.json("plan")["steps"] == []
    published.k4t("stop", "web", "--yes")
    assert resolve(names, "web.k4t.lab", "A") == resolve(names, "web.k4t.lab", "AAAA") == set()


def test_everything_is_reached_over_ipv6_alone(lab: Lab, site: Site) -> None:
    """SSH to node and gateway, what the gateway sends, and the DNS server: no IPv4 address is in the tree."""
    node, gateway = lab.host("n1"), lab.host("gw1")
    (site.db / "nodes" / "n2.xml").unlink()
    site.write("nodes/n1.xml", f'<node address="{node.address6}"/>\n')
    site.write("gateways/gw1.xml", f'<gateway driver="envoy" address="{gateway.address6}" http="80"/>\n')
    site.write("dns/names.xml", f'<dns driver="dnsmasq" address="{gateway.address6}" zone="k4t.lab"/>\n')
    try:
        site.k4t("gateway", "install")
        site.k4t("dns", "install")
        own(site, mode="host", more=ROUTE + "<env name='PORT'>8080</env>")
        site.k4t("apply", "--yes")
        assert fetch(f"http://[{gateway.address6}]/", "web.k4t.lab")[0] == 200
        assert resolve((gateway.address6, 53), "web.k4t.lab", "AAAA") == {node.address6}
        status = site.json("status")
        assert all(one["in_step"] for one in (*status["gateways"], *status["dns"]))
        assert site.json("plan")["steps"] == []
    finally:
        wipe(gateway)


def test_a_pool_of_ipv6_addresses_serves(pooled: Site, lab: Lab) -> None:
    """macvlan with IPv6 alone: probed from another host, served through Envoy, named by AAAA."""
    net = lab.host("n1").address6.rpartition("::")[0]
    inside = f'<addresses range="{net}::a00-{net}::a09" interface="eth0" subnet="{net}::/64" gateway="{net}::fe"/>'
    pooled.node(lab.host("n1"), inside=inside)
    pooled.node(lab.host("n2"))
    own(pooled, replicas=2, more=ROUTE)
    pooled.k4t("apply", "--yes")
    assert endpoints(pooled) == [(f"{net}::a00", 8080), (f"{net}::a01", 8080)]
    gateway = lab.host("gw1")
    assert len({fetch(f"http://{gateway.address}/", "web.k4t.lab")[1] for _ in range(20)}) == 2
    assert resolve((gateway.address, 53), "web.k4t.lab", "AAAA") == {f"{net}::a00", f"{net}::a01"}


def test_two_clusters_share_a_node_without_a_clash(site: Site, lab: Lab, tmp_path: Path) -> None:
    """Both apply at the same moment, round after round: no port and no address is given twice."""
    other = Site(lab, tmp_path / "other", name="test")
    for one in (site, other):
        (one.db / "nodes" / "n2.xml").unlink(missing_ok=True)
        one.node(lab.host("n1"), inside=pool(lab, 100, 115))
        one.node(lab.host("n2"), name="n2", inside='<label name="spare">yes</label>')
    try:
        for number in range(1, ROUNDS + 1):
            for one in (site, other):
                own(one, "own", replicas=3, version=number)
                one.write(
                    "apps/told/app.xml",
                    f"<app replicas='3'><image>{lab.image}</image><port name='http' host='auto'/>"
                    f"<env name='VER'>{number}</env><placement><require label='node'>n1</require></placement>"
                    "<update max-unavailable='1' drain='0s'/><stop grace='1s'/></app>",
                )
            runs = [one.start("apply", "--yes") for one in (site, other)]
            for run in runs:
                out, said = run.communicate(timeout=120)
                assert run.returncode == 0, out + said
            _nothing_twice(lab.host("n1"))
    finally:
        for host in lab.nodes:
            if names := containers(host):
                host.docker(["rm", "-f", *names])


def _nothing_twice(host: Host) -> None:
    labels = [inspected(host, name)["Config"]["Labels"] for name in containers(host)]
    assert len(labels) == 12
    owned = Counter(one["io.k4t.address"] for one in labels if one["io.k4t.app"] == "own")
    assert len(owned) == 6
    ports = Counter(one["io.k4t.ports"] for one in labels if one["io.k4t.app"] == "told")
    assert len(ports) == 6
    states = host.docker(["ps", "-a", "--format", "{{.State}}"]).stdout.split()
    assert set(states) == {"running"}
