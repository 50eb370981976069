"""What the registrar accepts, and what it refuses, on files alone."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from k4t.registrar import files, protocol
from k4t.registrar.document import Certificate, Epoch, to_json
from k4t.registrar.errors import Busy
from tests.registrar.hands import A, B, Door, commit, dnsmasq, document, envoy

pytestmark = pytest.mark.unit


@pytest.fixture
def gateway(tmp_path: Path) -> Door:
    return envoy(tmp_path)


def state(door: Door, driver: str = "envoy") -> Path:
    return door.root / "var/lib/k4t/registrar" / driver


def test_prepare_commit_observe(gateway: Door) -> None:
    """What is committed is what is seen, and Envoy's files say so."""
    made = document()
    answer = gateway.publish(made)
    assert answer["rendered"]
    assert "files are in place" in answer["pending"]
    seen = gateway.ok(op="observe", cluster=A)
    assert seen["document"] == to_json(made)
    assert seen["epoch"] == [1, "run1"]
    assert seen["staged"] == ""
    eds = json.loads((gateway.root / "var/lib/k4t/envoy/eds/web.main.json").read_text())
    assert eds["resources"][0]["cluster_name"] == "web.main"


def test_commit_twice(gateway: Door) -> None:
    """A commit can be done twice, and so can its prepare."""
    made = document()
    gateway.publish(made)
    assert gateway.ok(**commit(made))["rendered"]
    gateway.ok(**gateway.prepare(made))
    assert gateway.ok(op="observe", cluster=A)["staged"] == ""


def test_killed_in_the_middle_of_a_commit(gateway: Door) -> None:
    """Live but not rendered yet: it is seen as different, and the same commit again finishes it."""
    made = document()
    gateway.ok(**gateway.prepare(made))
    store = gateway.service.store
    kept = store.kept(A)
    store.persist(A, kept, protocol.commit(kept, "t1", kept.fence))  # and here the power went
    seen = gateway.ok(op="observe", cluster=A)
    assert seen["document"] == to_json(made)
    assert any("is not what k4t wrote" in text for text in seen["differences"])
    gateway.ok(**commit(made))
    seen = gateway.ok(op="observe", cluster=A)
    assert not any("is not what k4t wrote" in text for text in seen["differences"])


def test_commit_of_what_was_never_prepared(gateway: Door) -> None:
    """… is refused."""
    assert gateway.error(**commit(document()))[0] == "not-prepared"


def test_aborted_is_gone(gateway: Door) -> None:
    """After an abort the same transaction can't be committed, and nothing was published."""
    made = document()
    gateway.ok(**gateway.prepare(made))
    gateway.ok(op="abort", cluster=A, transaction="t1")
    assert gateway.error(**commit(made))[0] == "not-prepared"
    assert gateway.ok(op="observe", cluster=A)["document"] is None


def test_an_older_epoch_is_overtaken(gateway: Door) -> None:
    """After a fence nothing older is accepted: no fence, no prepare, no commit; the message says by whom."""
    gateway.ok(**gateway.prepare(document()))
    gateway.ok(op="fence", cluster=A, epoch=[5, "run5"])
    kind, message = gateway.error(op="fence", cluster=A, epoch=[4, "run4"])
    assert (kind, message) == ("overtaken", "run run4 (epoch 4) was overtaken by run run5 (epoch 5)")
    assert gateway.error(**gateway.prepare(document()))[0] == "overtaken"
    assert gateway.error(**commit(document()))[0] == "overtaken"


def test_a_fence_voids_older_staging(gateway: Door) -> None:
    """What an older run staged can't come alive later."""
    gateway.ok(**gateway.prepare(document()))
    gateway.ok(op="fence", cluster=A, epoch=[2, "run2"])
    assert gateway.ok(op="observe", cluster=A)["staged"] == ""


def test_every_accepted_operation_raises_the_fence(gateway: Door) -> None:
    """A prepare with a higher epoch fences off the ones below."""
    gateway.ok(**gateway.prepare(document(epoch=Epoch(7, "run7"))))
    assert gateway.error(op="fence", cluster=A, epoch=[6, "run6"])[0] == "overtaken"


def test_a_refused_prepare_raises_nothing(gateway: Door) -> None:
    """… so that a hopeless run doesn't fence off the others."""
    wrong = dataclasses.replace(document(epoch=Epoch(9, "run9")), parent="0" * 64)
    gateway.publish(document())
    assert gateway.error(**gateway.prepare(wrong, "t2"))[0] == "overtaken"
    assert gateway.ok(op="observe", cluster=A)["epoch"] == [1, "run1"]


def test_the_parent_must_be_live(gateway: Door) -> None:
    """A document derived from something else than what is live is refused, unless its writer saw what is live."""
    first = document()
    gateway.publish(first)
    second = document(ports=(81,), seq=2, parent="f" * 64)
    assert gateway.error(**gateway.prepare(second, "t2", seen="e" * 64))[0] == "overtaken"
    gateway.ok(**gateway.prepare(second, "t2", seen=first.sha256))


def test_a_document_must_be_newer(gateway: Door) -> None:
    """The same (epoch, seq) twice is refused."""
    first = document()
    gateway.publish(first)
    again = document(ports=(81,), parent=first.sha256)
    assert "not newer" in gateway.error(**gateway.prepare(again, "t2"))[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "0" * 64}, "checksum"),
        ({"cluster": B}, "a document of cluster aaaa1111 in a request of cluster bbbb2222"),
        ({"document": None}, "a document is a JSON object"),
        ({"transaction": ""}, "transaction"),
        ({"transaction": "x" * 300}, "transaction"),
        ({"zone": "a b"}, "zone"),
        ({"zone": "../.."}, "zone"),
        ({"op": "format_disk"}, "no such operation"),
        ({"cluster": ".."}, "cluster id"),
        ({"cluster": "../../etc"}, "cluster id"),
        ({"cluster": "a\nb"}, "cluster id"),
        ({"cluster": 'a"b'}, "cluster id"),
        ({"cluster": "x" * 300}, "cluster id"),
        ({"cluster": None}, "cluster id"),
    ],
)
def test_a_bad_request(gateway: Door, change: dict[str, Any], words: str) -> None:
    """… is refused by name, and nothing is written."""
    kind, message = gateway.error(**{**gateway.prepare(document()), **change})
    assert kind == "bad-request"
    assert words in message
    assert len(message) < 400
    assert not (state(gateway) / "clusters").exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", 'we"b', "we\nb", "w" * 300, "", "web;reboot", "WEB", "a/b"])
@pytest.mark.parametrize("field", ["app", "port_name", "ip"])
def test_hostile_names_in_a_document(gateway: Door, field: str, name: str) -> None:
    """Names that would be paths, quotes or lines elsewhere don't get in."""
    request = gateway.prepare(document())
    request["document"]["endpoints"][0][field] = name
    kind, message = gateway.error(**request)
    assert kind == "bad-request"
    assert len(message) < 400


@pytest.mark.parametrize("header", [["X"], ["X", 1], ["X", "a\nb"], ["X Y", "a"], ["X:", "a"], "X", [["X"], "a"]])
def test_hostile_headers_in_a_check(gateway: Door, header: Any) -> None:
    """A check's headers are pairs of plain text."""
    request = gateway.prepare(document())
    request["document"]["checks"][0]["headers"] = [header]
    assert gateway.error(**request)[0] == "bad-request"


@pytest.mark.parametrize("line", ["", "{", "[]", "1", '{"op": 1}', "[" * 100_000, '{"op":"fence","epoch":"x"}'])
def test_no_request_at_all(gateway: Door, line: str) -> None:
    """Whatever comes through the door gets an answer."""
    from k4t.registrar.__main__ import answer

    assert answer(gateway.service, line)["error"]["type"] == "bad-request"


@pytest.mark.parametrize("epoch", [None, [], [0, "r"], [-1, "r"], [True, "r"], [1], [1, ""], [1, "a b"], [2**60, "r"]])
def test_a_bad_epoch(gateway: Door, epoch: Any) -> None:
    """An epoch is (number from 1, run id)."""
    assert gateway.error(op="fence", cluster=A, epoch=epoch)[0] == "bad-request"


def test_a_restricted_key(tmp_path: Path) -> None:
    """A door that is for one cluster lets no other in."""
    envoy(tmp_path)
    door = Door(tmp_path, "envoy", only=A)
    door.ok(op="observe", cluster=A)
    assert "cluster aaaa1111 only" in door.error(op="observe", cluster=B)[1]
    assert door.error(op="list")[0] == "bad-request"


# --- several clusters ----------------------------------------------------------------------------------------


def test_two_clusters_add_up(gateway: Door) -> None:
    """Endpoints of one app in two clusters are served together; each cluster sees its own and the other's."""
    gateway.publish(document(A, ports=(80,)))
    gateway.publish(document(B, ports=(81,)))
    eds = json.loads((gateway.root / "var/lib/k4t/envoy/eds/web.main.json").read_text())
    served = eds["resources"][0]["endpoints"][0]["lb_endpoints"]
    assert [item["endpoint"]["address"]["socket_address"]["port_value"] for item in served] == [80, 81]
    seen = gateway.ok(op="observe", cluster=A)
    assert seen["document"]["cluster"] == A
    assert [other["cluster"] for other in seen["others"]] == [B]


def test_a_cluster_that_goes_takes_only_its_own(gateway: Door) -> None:
    """An empty document withdraws nothing of another cluster."""
    first = document(A, ports=(80,))
    gateway.publish(first)
    gateway.publish(document(B, ports=(81,)))
    empty = dataclasses.replace(first, seq=2, parent=first.sha256, endpoints=(), checks=(), routes=())
    gateway.publish(empty, "t2")
    eds = json.loads((gateway.root / "var/lib/k4t/envoy/eds/web.main.json").read_text())
    served = eds["resources"][0]["endpoints"][0]["lb_endpoints"]
    assert [item["endpoint"]["address"]["socket_address"]["port_value"] for item in served] == [81]


def test_the_same_endpoint_names_its_owner(gateway: Door) -> None:
    """The same ip:port of another cluster is refused, with the owner's name and id."""
    gateway.publish(document(A))
    kind, message = gateway.error(**gateway.prepare(document(B, app="shop", domain="other.com")))
    assert kind == "clash"
    assert message == "10.0.0.1:80 of app shop is already published by cluster prod (aaaa1111) for app web"


def test_the_same_route_names_its_owner(gateway: Door) -> None:
    """The same domain and prefix for another app is refused."""
    gateway.publish(document(A))
    kind, message = gateway.error(**gateway.prepare(document(B, app="shop", ip="10.0.0.2")))
    assert kind == "clash"
    assert "belongs to app web of cluster prod" in message


def test_what_is_only_staged_clashes_too(gateway: Door) -> None:
    """Two prepares that are both under way can't both win."""
    gateway.ok(**gateway.prepare(document(A)))
    assert gateway.error(**gateway.prepare(document(B, app="shop", domain="other.com")))[0] == "clash"


def test_the_same_name_in_dns_names_its_owner(tmp_path: Path) -> None:
    """One name for two apps is refused in one zone, and fine in two."""
    door = dnsmasq(tmp_path)
    door.publish(document(A, "dns"))
    shop = dataclasses.replace(
        document(B, "dns", app="shop", ip="10.0.0.2"),
        records=(dataclasses.replace(document(kind="dns").records[0], app="shop"),),
    )
    kind, message = door.error(**door.prepare(shop))
    assert kind == "clash"
    assert message == "record web.k4t.lab of app shop belongs to app web of cluster prod (aaaa1111)"
    door.ok(**door.prepare(shop, zone="other.lab"))


# --- state on disk -------------------------------------------------------------------------------------------


def test_newer_state_is_refused_by_name(gateway: Door) -> None:
    """State of a newer registrar is neither read nor overwritten."""
    gateway.publish(document())
    path = state(gateway) / "clusters" / A / "live.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    before = path.read_text()
    kind, message = gateway.error(op="observe", cluster=A)
    assert kind == "newer"
    assert "live.json" in message
    assert "format 2" in message
    assert gateway.error(**gateway.prepare(document(seq=2), "t2"))[0] == "newer"
    assert path.read_text() == before


def test_own_damage_is_healed_by_the_next_document(gateway: Door) -> None:
    """A damaged document counts as none for its own cluster, and is said."""
    gateway.publish(document())
    (state(gateway) / "clusters" / A / "live.json").write_text('{"format": 1, "docu')
    seen = gateway.ok(op="observe", cluster=A)
    assert seen["document"] is None
    assert "live.json is damaged" in seen["differences"][0]
    gateway.publish(document(seq=2), "t2")
    assert gateway.ok(op="observe", cluster=A)["document"]["seq"] == 2


def test_anothers_damage_stops_everything(gateway: Door) -> None:
    """A union without a damaged document would withdraw what it holds: refused, naming the file."""
    gateway.publish(document(A))
    path = state(gateway) / "clusters" / A / "live.json"
    path.write_text(path.read_text().replace('"port":80', '"port":99'))
    kind, message = gateway.error(**gateway.prepare(document(B, app="shop", ip="10.0.0.2", domain="o.com")))
    assert kind == "damaged"
    assert A in message
    assert "checksum" in message


def test_not_installed(tmp_path: Path) -> None:
    """A driver that was never set up here says so."""
    kind, message = Door(tmp_path, "envoy").error(op="observe", cluster=A)
    assert (kind, message) == ("not-installed", "the envoy driver is not set up on this host")


def test_unknown_driver(tmp_path: Path) -> None:
    """… and one that doesn't exist names those that do."""
    kind, message = Door(tmp_path, "caddy").error(op="install", config={})
    assert kind == "bad-request"
    assert "dnsmasq, dnsscript, envoy" in message


def test_install_twice_changes_nothing(tmp_path: Path) -> None:
    """The second time nothing is written; zones of several clusters add up."""
    door = dnsmasq(tmp_path)
    config = {"address": "127.0.0.1", "port": 1, "zones": ["k4t.lab"], "own": True}
    assert door.ok(op="install", config=config)["changed"] == []
    changed = door.ok(op="install", config={**config, "zones": ["b.lab"]})["changed"]
    assert [os.path.basename(path) for path in changed] == ["dnsmasq.conf", "config.json"]
    conf = (tmp_path / "etc/k4t/dnsmasq/dnsmasq.conf").read_text()
    assert "local=/k4t.lab/\nlocal=/b.lab/\n" in conf


def test_an_old_state_stays_readable_through_install(tmp_path: Path) -> None:
    """Setting up again keeps what is published."""
    door = envoy(tmp_path)
    door.publish(document())
    envoy(tmp_path, http=8080)
    assert door.ok(op="observe", cluster=A)["document"] is not None


def test_the_hosts_lock_is_waited_for_within_bounds(tmp_path: Path) -> None:
    """Another operation on the host is waited for, and not for ever."""
    path = str(tmp_path / "host.lock")
    with open(path, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=r"host\.lock was held"), files.locked(path, wait_s=0.05):
            pass
    with files.locked(path, wait_s=0.05):
        pass


# --- the vendor's say ----------------------------------------------------------------------------------------


def test_what_a_driver_cannot_express_is_refused(gateway: Door, tmp_path: Path) -> None:
    """A prepare that a vendor's file can't render says what it lacks."""
    made = document()

    def refused(**route: object) -> str:
        changed = dataclasses.replace(made.routes[0], **route)  # type: ignore[arg-type]
        certificates = (Certificate("example", "e" * 64),) if changed.tls else ()
        kind, message = gateway.error(
            **gateway.prepare(dataclasses.replace(made, routes=(changed,), certificates=certificates))
        )
        assert kind == "vendor-refused"
        return message.removeprefix("a route of app web: ")

    assert refused(listen=53, protocol="udp", tls="example") == "the envoy driver has no tls for UDP"
    assert refused(tls="example").startswith("this gateway has no https port")
    assert refused(listen=80) == "port 80 is taken by http"
    records = document(kind="dns")
    srv = dataclasses.replace(records, records=(dataclasses.replace(records.records[0], type="srv"),))
    assert "no srv records" in dnsmasq(tmp_path).error(**gateway.prepare(srv))[1]


def test_the_checker_says_no(tmp_path: Path) -> None:
    """The vendor's own checker is asked at prepare; nothing is staged."""
    door = envoy(tmp_path, binary="/bin/false")
    assert door.error(**door.prepare(document()))[0] == "vendor-refused"
    assert door.ok(op="observe", cluster=A)["staged"] == ""


def test_the_checker_says_no_at_commit(gateway: Door) -> None:
    """Accepted, not rendered: the last good files stay, and it is said until it is rendered."""
    first = document()
    gateway.publish(first)
    second = document(app="shop", seq=2, parent=first.sha256)
    gateway.ok(**gateway.prepare(second, "t2"))
    envoy(gateway.root, binary="/bin/false")
    answer = gateway.ok(**commit(second, "t2"))
    assert not answer["rendered"]
    assert "Envoy refuses it" in answer["problem"]
    assert (gateway.root / "var/lib/k4t/envoy/eds/web.main.json").exists()
    assert not (gateway.root / "var/lib/k4t/envoy/eds/shop.main.json").exists()
    seen = gateway.ok(op="observe", cluster=A)
    assert not seen["rendered"]
    assert seen["document"]["seq"] == 2
    envoy(gateway.root)
    assert gateway.ok(**commit(second, "t2"))["rendered"]
    assert gateway.ok(op="observe", cluster=A)["rendered"]


# --- by hand -------------------------------------------------------------------------------------------------


def test_manual_entries(gateway: Door) -> None:
    """Added by hand, they are served beside the documents, and go by hand."""
    gateway.publish(document())
    entry = {"op": "manual", "cname": "web", "ip": "10.9.9.9", "port": 8080}
    gateway.ok(**entry, verb="add")
    eds = gateway.root / "var/lib/k4t/envoy/eds/web.main.json"
    assert "10.9.9.9" in eds.read_text()
    owners = {row["ip"]: row["owner"] for row in gateway.ok(op="list")["endpoints"]}
    assert owners == {"10.0.0.1": "prod", "10.9.9.9": "manual"}
    gateway.ok(**entry, verb="remove")
    assert "10.9.9.9" not in eds.read_text()
    assert "no manual entry" in gateway.error(**entry, verb="remove")[1]


def test_a_manual_entry_clashes_too(gateway: Door) -> None:
    """What a cluster publishes for one app can't be added for another by hand."""
    gateway.publish(document())
    assert gateway.error(op="manual", verb="add", cname="shop", ip="10.0.0.1", port=80)[0] == "clash"
    assert gateway.error(op="manual", verb="add", cname="../x", ip="10.0.0.1", port=80)[0] == "bad-request"


def test_a_withdrawal_ends_with_the_container(gateway: Door) -> None:
    """Withdrawn stays out while documents name that container, and is forgotten with it."""
    first = document(ports=(80, 81))
    gateway.publish(first)
    gateway.ok(op="manual", verb="withdraw", cname="web", ip="10.0.0.1", port=81, by="monitor", why="dead")
    eds = gateway.root / "var/lib/k4t/envoy/eds/web.main.json"
    assert '"port_value": 81' not in eds.read_text()
    second = document(ports=(80, 81, 82), seq=2, parent=first.sha256)
    gateway.publish(second, "t2")
    assert '"port_value": 81' not in eds.read_text()
    assert '"port_value": 82' in eds.read_text()
    third = document(ports=(80, 82), seq=3, parent=second.sha256)
    gateway.publish(third, "t3")
    assert gateway.ok(op="list")["withdrawals"] == []


def test_a_manual_name_in_dns(tmp_path: Path) -> None:
    """By hand, an app's name stands in the server's own zone."""
    door = dnsmasq(tmp_path)
    door.ok(op="manual", verb="add", cname="printer", ip="10.9.9.9", port=0)
    assert (tmp_path / "var/lib/k4t/dnsmasq/hosts/k4t").read_text() == "10.9.9.9 printer.k4t.lab\n"


def test_by_hand_what_another_has_staged(gateway: Door) -> None:
    """It may be decided already: refused as what is live would be."""
    gateway.ok(**gateway.prepare(document()))
    error, words = gateway.error(op="manual", verb="add", cname="shop", ip="10.0.0.1", port=80)
    assert error == "clash"
    assert "prod" in words


def test_killed_between_the_fence_and_the_staging(gateway: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence is written first: what an older run staged is void, though its file is there still."""
    gateway.ok(**gateway.prepare(document()))
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            gateway.service.answer({"op": "fence", "cluster": A, "epoch": [7, "newer"]})
    seen = gateway.ok(op="observe", cluster=A)
    assert (seen["epoch"], seen["staged"]) == ([7, "newer"], "")
    assert gateway.error(**commit(document()))[0] == "overtaken"
    gateway.ok(op="fence", cluster=A, epoch=[7, "newer"])
    assert gateway.service.store.staged(A) is None


def test_a_damaged_staging_is_none(gateway: Door) -> None:
    """It can't be committed, and it stands in nobody's way."""
    gateway.ok(**gateway.prepare(document()))
    path = Path(gateway.service.store.directory, "clusters", A, "staged.json")
    path.write_text(path.read_text().replace("10.0.0.1", "10.0.0.7"))
    assert gateway.error(**commit(document()))[0] == "not-prepared"
    gateway.ok(**gateway.prepare(document(B)))


def test_a_document_knows_what_it_follows(gateway: Door) -> None:
    """As far as this host saw it: forks are told by that."""
    first = document()
    gateway.publish(first)
    second = document(seq=2, parent=first.sha256)
    gateway.publish(second, "t2", seen=first.sha256)
    assert gateway.ok(op="observe", cluster=A)["ancestors"] == ((1, first.sha256),)


def test_what_is_counted_is_asked_by_name(tmp_path: Path) -> None:
    """Nothing of ours: nobody is asked. A name that is none, and a driver that doesn't count, are told so."""
    gateway = envoy(tmp_path / "gateway")
    assert gateway.ok(op="counters", cluster=A, apps=["web"]) == {"counters": []}
    for wrong in (None, "web", [1], ["web|.*"], ["a" * 41]):
        assert gateway.error(op="counters", cluster=A, apps=wrong)[1] == "apps must be a list of names"
    gateway.publish(document())
    assert gateway.error(op="counters", cluster=A, apps=["web"])[0] == "vendor-silent"
    names = dnsmasq(tmp_path / "names")
    names.publish(document(kind="dns"))
    assert "counts no requests" in names.error(op="counters", cluster=A, apps=["web"])[1]
