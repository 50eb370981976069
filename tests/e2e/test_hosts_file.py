"""An app named in a plain hosts file, by the command line."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import wipe
from tests.e2e.site import Site
from tests.lab import Lab

pytestmark = pytest.mark.integration
PATH = "/etc/coredns/k4t.hosts"


def test_a_hosts_file(site: Site, lab: Lab) -> None:
    """Installed where the tree says, filled by an apply, an edit told and healed, a TTL without effect said, emptied;
    a file of somebody else's is refused and left alone."""
    host = lab.host("gw1")
    try:
        site.write("dns/names.xml", f'<dns driver="hosts" address="{host.address}" zone="k4t.lab" path="{PATH}"/>\n')
        said = site.k4t("dns", "install").stdout
        assert f"wrote {PATH}" in said
        assert "nothing to do" in site.k4t("dns", "install").stdout
        site.app("web", replicas=2, more='  <record ttl="2s"/>')
        plan = site.json("plan")
        assert any("names (hosts) serves every name with a TTL of its own" in line for line in plan["warnings"]), plan
        site.k4t("apply", "--yes")
        addresses = sorted((lab.host("n1").address, lab.host("n2").address))
        lines = [f"{address} web.k4t.lab" for address in addresses]
        assert host.exec(["cat", PATH]).stdout.splitlines()[1:] == lines
        host.exec(["sed", "-i", f"s/^{addresses[0]} .*/10.6.6.6 evil.k4t.lab/", PATH])
        differences = site.json("status")["dns"][0]["differences"]
        assert "evil.k4t.lab gives 10.6.6.6, which is not published" in differences
        site.k4t("apply", "--yes")
        assert host.exec(["cat", PATH]).stdout.splitlines()[1:] == lines
        site.k4t("app", "remove", "web", "--yes")
        assert len(host.exec(["cat", PATH]).stdout.splitlines()) == 1

        before = host.exec(["cat", "/etc/hosts"]).stdout
        text = (site.db / "dns/names.xml").read_text()
        site.write("dns/names.xml", text.replace(PATH, "/etc/hosts"))
        refused = site.k4t("dns", "install", status=1)
        assert "/etc/hosts holds what k4t did not write" in refused.stderr
        assert host.exec(["cat", "/etc/hosts"]).stdout == before
    finally:
        wipe(host)
        host.exec(["rm", "-rf", "/etc/coredns"])
