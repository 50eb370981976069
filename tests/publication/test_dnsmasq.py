"""A real dnsmasq, over SSH."""

from __future__ import annotations

import time
from typing import Any

import pytest

from k4t.dns import install
from k4t.errors import Differs, StepError, VendorRefused
from k4t.registrar.document import Endpoint, Record
from tests.publication.conftest import OTHER, PROD, Site, record

pytestmark = pytest.mark.integration
HOSTS = "/var/lib/k4t/dnsmasq/hosts/k4t"


def ask(site: Site, name: str, kind: str = "A") -> list[str]:
    """With a client of the system, not our own."""
    done = site.ns.exec(["dig", "+short", "+time=2", "+tries=1", f"@{site.ns.address}", name, kind], check=False)
    return sorted(line for line in done.stdout.split("\n") if line and not line.startswith(";"))


def web(*ips: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint("web", ip, 80, container=f"c{ip}") for ip in ips)


def test_publish_change_remove(clean: Site) -> None:
    """The name follows the document; without endpoints, and without a record, there is no answer."""
    clean.publish("dns", endpoints=web("10.0.0.1", "fd88::1"), records=(record(),))
    assert ask(clean, "web.k4t.lab") == ["10.0.0.1"]
    assert ask(clean, "web.k4t.lab", "AAAA") == ["fd88::1"]
    clean.publish("dns", endpoints=web("10.0.0.2", "10.0.0.3"))
    assert ask(clean, "web.k4t.lab") == ["10.0.0.2", "10.0.0.3"]
    assert ask(clean, "web.k4t.lab", "AAAA") == []
    clean.publish("dns", endpoints=())
    assert ask(clean, "web.k4t.lab") == []
    clean.publish("dns", endpoints=web("10.0.0.1"), records=())
    assert ask(clean, "web.k4t.lab") == []


def test_names(clean: Site) -> None:
    """Relative to the zone unless they end with it; literal addresses; the zone itself; upper case in the question."""
    names = (Record("a.b", "web"), Record("full.k4t.lab", "web"), Record("k4t.lab", "web"))
    clean.publish("dns", endpoints=web("10.0.0.1"), records=(*names, Record("gateways", "web", to=("10.9.9.9",))))
    for name in ("a.b.k4t.lab", "full.k4t.lab", "k4t.lab", "A.B.K4T.Lab"):
        assert ask(clean, name) == ["10.0.0.1"], name
    assert ask(clean, "gateways.k4t.lab") == ["10.9.9.9"]


def test_many_addresses(clean: Site) -> None:
    """More than a UDP answer holds: read back over TCP."""
    ips = tuple(f"10.1.{place // 250}.{place % 250 + 1}" for place in range(300))
    clean.publish("dns", endpoints=web(*ips), records=(record(),))
    assert ask(clean, "web.k4t.lab") == sorted(ips)
    assert clean.observe("dns").differences == ()


def test_hand_edit_is_seen_and_healed(clean: Site) -> None:
    """Lines that were changed or added on the host are differences; the next publication heals them."""
    parts: dict[str, Any] = {"endpoints": web("10.0.0.1"), "records": (record(),)}
    clean.publish("dns", **parts)
    clean.ns.exec(["sh", "-c", f"printf '10.6.6.6 web.k4t.lab\\n10.6.6.6 evil.k4t.lab\\n' > {HOSTS}"])
    differences: tuple[str, ...] = ()
    for _ in range(100):
        differences = clean.observe("dns").differences
        if len(differences) == 4:
            break
        time.sleep(0.02)
    assert set(differences) == {
        f"{HOSTS} is not what k4t wrote",
        "web.k4t.lab does not give 10.0.0.1",
        "web.k4t.lab gives 10.6.6.6, which is not published",
        "evil.k4t.lab gives 10.6.6.6, which is not published",
    }
    clean.publish("dns", **parts)
    assert clean.observe("dns").differences == ()
    assert ask(clean, "evil.k4t.lab") == []


def test_two_clusters(clean: Site) -> None:
    """One name in two clusters adds up; a name that another app has names its owner."""
    clean.publish("dns", endpoints=web("10.0.0.1"), records=(record(),))
    clean.publish("dns", OTHER, endpoints=web("10.0.0.2"), records=(record(),))
    assert ask(clean, "web.k4t.lab") == ["10.0.0.1", "10.0.0.2"]
    with pytest.raises(StepError, match=r"record web\.k4t\.lab of app shop belongs to app web of cluster prod"):
        clean.publish("dns", OTHER, endpoints=(), records=(Record("web", "shop"),))
    clean.publish("dns", PROD, endpoints=(), records=())
    assert ask(clean, "web.k4t.lab") == ["10.0.0.2"]


def test_srv_is_refused(clean: Site) -> None:
    """What dnsmasq's hosts files can't express is refused before anything changes."""
    assert not clean.dnsmasq().capabilities.srv
    with pytest.raises(VendorRefused, match="the dnsmasq driver has no srv records"):
        clean.publish("dns", endpoints=web("10.0.0.1"), records=(Record("web", "web", "srv", "main"),))


def test_not_answering(clean: Site) -> None:
    """Stopped: the file is right, nobody answers, and it is said; started again, it serves."""
    clean.publish("dns", endpoints=web("10.0.0.1"), records=(record(),))
    clean.ns.exec(["sh", "-c", "kill -9 $(cat /run/k4t-dnsmasq.pid)"])
    with pytest.raises(Differs, match=r"no DNS answer from .*:53.*k4t dns install dns1 starts what does not run"):
        clean.publish("dns", endpoints=web("10.0.0.2"))
    state = clean.observe("dns")
    assert state.reachable
    assert "its hosts file is in place and is read when it starts" in state.differences[0]
    done = list(install.install(clean.connection("dns1"), clean.dns))
    assert any("started as a daemon" in line for line in done)
    assert ask(clean, "web.k4t.lab") == ["10.0.0.2"]


def test_frozen(clean: Site) -> None:
    """It holds the port and says nothing: bounded, and said."""
    clean.publish("dns", endpoints=web("10.0.0.1"), records=(record(),))
    clean.ns.exec(["sh", "-c", "kill -STOP $(cat /run/k4t-dnsmasq.pid)"])
    try:
        started = time.monotonic()
        state = clean.observe("dns")
        assert "its hosts file is in place and is read when it starts" in state.differences[0]
        assert time.monotonic() - started < 30
    finally:
        clean.ns.exec(["sh", "-c", "kill -CONT $(cat /run/k4t-dnsmasq.pid)"])


def test_restarted_serves_the_same(clean: Site) -> None:
    """Nothing is lost when it is killed."""
    clean.publish("dns", endpoints=web("10.0.0.1"), records=(record(),))
    clean.ns.exec(["sh", "-c", "kill -9 $(cat /run/k4t-dnsmasq.pid)"])
    list(install.install(clean.connection("dns1"), clean.dns))
    assert ask(clean, "web.k4t.lab") == ["10.0.0.1"]
    assert clean.observe("dns").differences == ()


def test_install_again(clean: Site) -> None:
    """A second install has nothing to do."""
    assert next(iter(install.install(clean.connection("dns1"), clean.dns))) == "nothing to do"


def test_by_hand_on_the_host(clean: Site) -> None:
    """`k4t-registrar add` on the host itself, beside what clusters publish."""
    from k4t.remote.registrar import build, zipapp_path

    clean.publish("dns", endpoints=web("10.0.0.1"), records=(record(),))
    entry = ["--cname", "printer", "--ip", "10.7.7.7", "--port", "9100"]
    registrar = ["python3", "-IS", zipapp_path(build()[1]), "--driver", "dnsmasq"]
    clean.ns.exec([*registrar, "add", *entry])
    assert ask(clean, "printer.k4t.lab") == ["10.7.7.7"]
    assert clean.ns.exec([*registrar, "check"]).stdout == ""
    clean.ns.exec([*registrar, "remove", *entry])
    assert ask(clean, "printer.k4t.lab") == []
    assert ask(clean, "web.k4t.lab") == ["10.0.0.1"]
