"""A certificate from the tree: served, renewed, warned about, and its key nowhere but where it belongs."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.e2e.site import Site, fetch
from tests.lab import Lab

pytestmark = pytest.mark.integration
AUTHORITY = Authority()
ROUTE = '  <route domain="web.example.com" tls="web" redirect="https"/>\n'


@pytest.fixture
def secure(published: Site, lab: Lab) -> Site:
    """A gateway with an https port, an app with a certificate whose key lies in a file."""
    host = lab.host("gw1")
    published.write("gateways/gw1.xml", f'<gateway driver="envoy" address="{host.address}" https="443"/>\n')
    published.k4t("gateway", "install")
    published.write("certificates/web.xml", '<certificate chain="web.pem" key-secret="web-key"/>\n')
    published.write("secrets/web-key.xml", f'<secret file="{published.home}/web.key"/>\n')
    published.app(more=ROUTE)
    renew(published)
    return published


def renew(site: Site, days: int = 90) -> str:
    """A new pair; the line of the key by which it would be found anywhere."""
    chain, key = AUTHORITY.pair("web.example.com", days=days)
    site.write("certificates/web.pem", chain)
    path = Path(site.home / "web.key")
    path.write_text(key)
    path.chmod(0o600)
    return key.splitlines()[1]


def serial(lab: Lab) -> str:
    """Of what the gateway shows to a client that trusts the authority."""
    context = AUTHORITY.trusting()
    plain = socket.create_connection((lab.host("gw1").address, 443), 5)
    with context.wrap_socket(plain, server_hostname="web.example.com") as connection:
        shown = connection.getpeercert()
        assert shown
        return str(shown["serialNumber"])


def test_served_and_renewed(secure: Site, lab: Lab) -> None:
    """Applied it is shown; a new one is a change that the plan names with its days, and shown after the next apply;
    its key is asked for only then, and stands in one file of the gateway alone."""
    secure.k4t("apply", "--yes")
    before = serial(lab)
    address = lab.host("gw1").address
    with pytest.raises(ssl.SSLError), socket.create_connection((address, 443), 5) as plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname="web.example.com")
    assert secure.json("plan")["changes"] == 0

    mark = renew(secure, days=200)
    plan = secure.k4t("plan").stdout
    assert "certificate web: valid until 20" in plan
    (secure.home / "web.key").rename(secure.home / "elsewhere")
    done = secure.k4t("apply", "--yes", status=None)
    assert done.returncode == 1
    assert "web-key" in done.stdout + done.stderr
    assert serial(lab) == before
    (secure.home / "elsewhere").rename(secure.home / "web.key")
    secure.k4t("apply", "--yes")
    assert serial(lab) != before
    assert secure.json("plan")["changes"] == 0

    find = f"grep -rlF '{mark}' /var/lib/k4t /var/log/k4t /etc/k4t /run; true"
    found = lab.host("gw1").exec(["sh", "-c", find], check=False).stdout.split()
    assert len(found) == 1
    assert found[0].endswith(".key.pem")
    for path in secure.db.rglob("*"):
        assert not path.is_file() or mark.encode() not in path.read_bytes(), path


def test_said_beforehand(secure: Site) -> None:
    """One that ends soon, or is for another name, makes the plan say so; one that isn't there is an error."""
    renew(secure, days=5)
    secure.app(more=ROUTE.replace("web.example.com", "web.example.com www.example.com"))
    plan = secure.k4t("plan").stdout
    assert "certificates/web.xml:1: certificate web expires on 20" in plan
    assert "clients that ask for www.example.com refuse it" in plan
    (secure.db / "certificates/web.xml").unlink()
    (secure.db / "certificates/web.pem").unlink()
    said = secure.k4t("validate", status=65).stdout
    assert "no certificate 'web'" in said
    assert "apps/web/app.xml:" in said


def test_plain_goes_to_https(secure: Site, lab: Lab) -> None:
    """`tls` with redirect="https"."""
    secure.k4t("apply", "--yes")
    import http.client

    connection = http.client.HTTPConnection(lab.host("gw1").address, 80, timeout=5)
    connection.request("GET", "/x?y", headers={"Host": "web.example.com"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["location"]) == (301, "https://web.example.com/x?y")
    connection.close()
    assert fetch(f"http://{lab.host('gw1').address}/", "other.example.com")[0] == 404
