"""Edits by hand, lost pieces, refusals, a server that is away: each in its own words, and healed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from k4t.dns.rfc2136 import Rfc2136
from k4t.errors import (
    K4tError,
    LoginRefused,
    ParticipantAway,
    StepError,
    VendorRefused,
)
from k4t.registrar.document import Epoch, Record
from tests.publication.named import OTHER_KEY
from tests.publication.rfc2136.conftest import OTHER, SRV, WEB, Site, document, web

pytestmark = pytest.mark.integration


# --- drift -------------------------------------------------------------------------------------------------


def test_hand_edits_are_seen_and_healed(site: Site) -> None:
    """What somebody changed by nsupdate is told in words, and put right by the next publication."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB, SRV, Record("shop", "web")))
    site.named.nsupdate(
        "update delete web.k4t.lab. A",
        "update add web.k4t.lab. 30 A 10.6.6.6",
        "update delete _k4t-owner.web.k4t.lab. TXT",
        "update delete shop.k4t.lab. A",
        "update add shop.k4t.lab. 999 A 10.0.0.1",
        "update add web.k4t.lab. 30 AAAA fd66::6",
        "update delete 10-0-0-1.web.k4t.lab. A",
    )
    assert set(site.observe().differences) == {
        "web.k4t.lab does not give 10.0.0.1",
        "web.k4t.lab gives 10.6.6.6, which is not published",
        "web.k4t.lab gives fd66::6, which is not published",
        "_k4t-owner.web.k4t.lab is missing",
        "shop.k4t.lab A has TTL 999 s, not 30 s",
        "10-0-0-1.web.k4t.lab does not give 10.0.0.1",
    }
    site.publish()
    assert site.observe().differences == ()
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_a_lost_piece_of_the_document(site: Site) -> None:
    """Somebody removed k4t's own TXT: it is told, no other cluster publishes over it, its own one heals it."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    pieces = [line.split()[0] for line in site.named.dump() if line.startswith("0.")]
    site.named.nsupdate(*[f"update delete {name} TXT" for name in pieces])
    state = site.observe()
    assert state.document is None
    assert any("a piece of the document at _k4t-k7f3q2m9.k4t.lab is gone" in text for text in state.differences)
    before = site.named.dump()
    with pytest.raises(StepError, match=r"_k4t-k7f3q2m9\.k4t\.lab is gone"):
        site.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    assert site.named.dump() == before
    site.publish(endpoints=web("10.0.0.3"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.3"]
    assert site.observe().differences == ()


def test_a_damaged_document_with_srv(site: Site) -> None:
    """The hosts of SRV records are known by their name's mark too: the next publication replaces them."""
    site.publish(endpoints=web("10.0.0.1"), records=(SRV,))
    pieces = [line.split()[0] for line in site.named.dump() if line.startswith("0.")]
    site.named.nsupdate(*[f"update delete {name} TXT" for name in pieces])
    site.publish(endpoints=web("10.0.0.1", "10.0.0.2"), records=(SRV,))
    assert len(site.named.dig("_http._tcp.web.k4t.lab", "SRV")) == 2
    assert site.observe().differences == ()


def test_a_damaged_staged_document_is_void(site: Site) -> None:
    """Nobody is stuck on what was never decided."""
    member = site.member()
    member.fence(Epoch(1, "runA"))
    member.prepare("t1", document())
    pieces = [line.split()[0] for line in site.named.dump() if line.startswith("0.")]
    site.named.nsupdate(*[f"update delete {name} TXT" for name in pieces])
    with pytest.raises(StepError, match="was never prepared here"):
        member.commit("t1")
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_a_lost_index(site: Site) -> None:
    """Who writes to the zone is not known any more: nothing is published over the others."""
    site.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.nsupdate("update delete _k4t.k4t.lab. TXT")
    state = site.observe()
    assert not state.reachable
    assert "_k4t-k7f3q2m9.k4t.lab TXT says that cluster k7f3q2m9 writes to this zone, and _k4t.k4t.lab TXT doesn't" in (
        state.problem
    )
    with pytest.raises(StepError):
        site.publish(endpoints=web("10.0.0.3"))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.2"]


def test_state_of_a_newer_k4t(site: Site) -> None:
    """It is not guessed at."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.nsupdate(
        "update delete _k4t.k4t.lab. TXT", 'update add _k4t.k4t.lab. 0 TXT "k4t=2 id=ab writes=1 by=cd"'
    )
    state = site.observe()
    assert not state.reachable
    assert "written by a newer k4t (format 2; this one reads up to 1)" in state.problem


def test_blank(site: Site) -> None:
    """A replacement holds nothing and says so; one publication fills it."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB, SRV))
    site.named.stop()
    site.named.blank()
    site.named.start()
    state = site.observe()
    assert (state.reachable, state.document, state.epoch.number) == (True, None, 0)
    site.publish(endpoints=web("10.0.0.1"), records=(WEB, SRV))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_killed_and_restarted(site: Site) -> None:
    """kill -9 right after the answer: everything is there again, the fence too."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    before = site.named.dump()
    site.named.stop(signal.SIGKILL)
    site.named.start()
    assert site.named.dump() == before
    state = site.observe()
    assert (state.epoch.number, state.differences) == (1, ())


# --- who says no -------------------------------------------------------------------------------------------


def refusal(member: Rfc2136) -> K4tError:
    with pytest.raises(K4tError) as caught:
        member.fence(Epoch(1, "runA"))
    state = member.observe()
    assert state.reachable or state.exit_status == caught.value.exit_status
    return caught.value


def test_each_refusal_has_its_own_words(site: Site) -> None:
    """Wrong secret, unknown key, a key that may not update, no key, another zone, a static one, a frozen one."""
    wrong = "c2VjcmV0LXRoYXQtaXMtd3Jvbmc="
    error = refusal(site.member(secret=wrong))
    assert "ns1: TSIG key k4t has another secret there (BADSIG)" in str(error)
    assert isinstance(error, LoginRefused)
    assert wrong not in str(error)
    error = refusal(site.member(key_name="nobody"))
    assert "it doesn't know TSIG key nobody (BADKEY)" in str(error)
    error = refusal(site.member(key_name=OTHER_KEY))
    assert "it refuses updates of k4t.lab by key somebody" in str(error)
    assert "allow-update or update-policy must name key somebody" in str(error)
    error = refusal(site.member(key_name=""))
    assert "it refuses updates of k4t.lab by this address (no key)" in str(error)
    error = refusal(site.member(zone="elsewhere.lab"))
    assert "it refuses questions about elsewhere.lab by key k4t; is the zone there" in str(error)
    error = refusal(site.member(zone="below.k4t.lab"))
    assert "it is not the primary server of below.k4t.lab" in str(error)
    error = refusal(site.member(zone="static.lab"))
    assert "it refuses updates of static.lab" in str(error)


def test_frozen(site: Site) -> None:
    """While the operator edits the zone's file, it refuses; nothing changes; thawed, it goes on."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.rndc("freeze", "k4t.lab")
    with pytest.raises(LoginRefused) as caught:
        site.publish(endpoints=web("10.0.0.2"), records=(WEB,))
    assert "it refuses updates of k4t.lab now, and took them before: the zone is frozen" in str(caught.value)
    assert "rndc thaw k4t.lab" in str(caught.value)
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]
    assert site.observe().differences == ()
    site.named.rndc("thaw", "k4t.lab")
    site.publish(endpoints=web("10.0.0.2"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.2"]


def test_a_directory_that_cannot_be_written(site: Site) -> None:
    """BIND can't write its journal: it says SERVFAIL, and the message says where to look."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    journal = site.named.directory / "k4t.lab.zone.jnl"
    site.named.rndc("sync", "-clean", "k4t.lab")
    journal.unlink(missing_ok=True)
    journal.mkdir()
    with pytest.raises(VendorRefused, match=r"could not carry that out in k4t\.lab \(SERVFAIL\); its log says why"):
        site.publish(endpoints=web("10.0.0.2"), records=(WEB,))
    journal.rmdir()
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_away(site: Site) -> None:
    """Nobody there, and somebody who doesn't answer, are two messages; both are bounded, and neither is empty."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.pause()
    member = site.member()
    try:
        state = member.observe()
    finally:
        site.named.go_on()
    assert not state.reachable
    assert "ns1: no DNS answer: timed out" in state.problem
    assert state.exit_status == 69
    site.named.stop()
    state = site.observe()
    assert "ns1: no DNS answer over TCP: Connection refused" in state.problem
    assert state.exit_status == 69
    with pytest.raises(ParticipantAway):
        site.publish(endpoints=web("10.0.0.2"))
    site.named.start()
    assert site.observe().differences == ()


def test_idle_connections_are_made_anew(site: Site) -> None:
    """A server that hung up meanwhile (as BIND does after 30 s, or because it was restarted) is asked again."""
    member = site.member()
    assert member.observe().reachable
    site.named.stop()
    site.named.start()
    assert member.observe().reachable


def test_the_key_is_nowhere(site: Site, tmp_path: Path) -> None:
    """Not in the zone, not in any text of the driver's."""
    member = site.member()
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    member.observe()
    text = "\n".join([*site.named.dump(), repr(member._key), repr(member), repr(vars(member._zone.server))])
    assert site.named.secret not in text
    assert "algorithm='hmac-sha256'" in text
