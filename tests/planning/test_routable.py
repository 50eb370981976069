"""What routes ask of gateways and certificates: refused where the weakest member can't, said where it matters."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.gateway.script import capabilities
from k4t.master.planning.capable import caveats, inexpressible
from k4t.master.planning.certificates import certificates_of, keys_wanted, renewed
from k4t.master.planning.endpoints import compose, routes_of, settled_by_app, wanted_of
from k4t.master.planning.former import of_app
from k4t.master.planning.plan import Publish
from k4t.master.publication.fake import FakeParticipant
from k4t.model.app import App, Image, Port, Scale
from k4t.model.hosts import Gateway, Script
from k4t.model.participant import Capabilities
from k4t.model.publish import Certificate, Route
from k4t.model.shared import Where
from k4t.model.spec import Cluster, Tree
from k4t.model.state import Observed, ParticipantState
from k4t.registrar.document import Certificate as Named
from k4t.registrar.document import Document, check

pytestmark = pytest.mark.unit
NOW = "2026-11-20T12:00:00Z"
OLD, NEW = (
    Certificate("example", "e.pem", "key", sha256=sha * 64, expires=f"{end}T00:00:00Z", where=Where("c.xml", 1))
    for sha, end in (("a", "2026-12-20"), ("b", "2027-03-20"))
)
FILES = Certificate("files", chain_path="/etc/c.pem", key_path="/etc/k.pem")

SAID = {
    "tls", "weight", "routes_l4", "routes_udp", "redirect", "affinity", "upstream_tls", "upstream_h2c", "strip_prefix",
    "hosts_and_paths", "reads_back",
}  # fmt: skip


def tree(*routes: Route, certificates: tuple[Certificate, ...] = (OLD, FILES), app: str = "web") -> Tree:
    placed = tuple(dataclasses.replace(one, where=Where(f"apps/{app}/app.xml", n)) for n, one in enumerate(routes, 4))
    made = App(app, Image("web:1"), ports=(Port(), Port("dns", protocol="udp")), routes=placed)
    gateways = {name: Gateway(name, "x", "10.0.0.1", where=Where(f"gateways/{name}.xml", 1)) for name in ("gw1", "gw2")}
    known = {certificate.name: certificate for certificate in certificates}
    return Tree(Cluster("prod", "k7f3q2m9"), apps={app: made}, gateways=gateways, certificates=known)


def gateway(*lacking: str, name: str = "gw2") -> FakeParticipant:
    means = dataclasses.replace(Capabilities(), **dict.fromkeys(lacking, False))
    return FakeParticipant(name, driver="plain", capabilities=means)


@pytest.mark.parametrize(
    ("route", "lacking", "words"),
    [
        (Route(listen=5432), "routes_l4", "a port of its own (listen)"),
        (Route(listen=53, port="dns"), "routes_udp", "a port for udp (listen)"),
        (Route(tls="files"), "tls", "tls"),
        (Route(redirect="https"), "redirect", "redirect"),
        (Route(weight=0), "weight", "weight"),
        (Route(affinity="cookie"), "affinity", "affinity"),
        (Route(prefix="/a", strip_prefix=True), "strip_prefix", "strip-prefix"),
        (Route(upstream="tls"), "upstream_tls", 'upstream="tls"'),
        (Route(upstream="h2c"), "upstream_h2c", 'upstream="h2c"'),
    ],
)
def test_the_weakest_member_decides(route: Route, lacking: str, words: str) -> None:
    """Named with the line of the route and the gateway; who can isn't, nor who is in another group."""
    members = [gateway(name="gw1"), gateway(lacking)]
    (found,) = inexpressible(tree(Route(), route), members)
    assert str(found) == (
        f"apps/web/app.xml:5: the route of web asks for {words}, which gw2 (plain) can't do; "
        "leave it out, or route by another group of gateways"
    )
    elsewhere = dataclasses.replace(members[1], group="other")
    assert inexpressible(tree(Route(), route), [members[0], elsewhere]) == ()


def test_all_that_one_route_asks_in_one_sentence() -> None:
    """One finding a route and gateway."""
    (found,) = inexpressible(tree(Route(tls="files", weight=1, redirect="/x")), [gateway("tls", "weight")])
    assert "asks for tls and weight, which" in found.message


def test_gateways_that_do_not_check() -> None:
    """Said once a gateway, where it has anything to serve."""
    idle = gateway("active_checks")
    (said,) = caveats(tree(Route(), Route(prefix="/x")), [idle], NOW)
    assert said.startswith("gateways/gw2.xml:1: gw2 (plain) makes no health checks of its own")
    assert caveats(tree(), [idle], NOW) == ()


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2026-11-20T12:00:00Z", ()),
        ("2026-12-10T00:00:00Z", ("c.xml:1: certificate example expires on 2026-12-20, in 10 days",)),
        ("2026-12-20T00:00:01Z", ("c.xml:1: certificate example expired on 2026-12-20: clients refuse it",)),
    ],
)
def test_certificates_that_end(at: str, words: tuple[str, ...]) -> None:
    """Two weeks before, and when it is too late; only those that a route names."""
    assert caveats(tree(Route(tls="example"), Route(tls="files", prefix="/f")), [], at) == words
    assert caveats(tree(Route()), [], at) == ()


def published(desired: Tree, live: Document | None = None, app: str = "web") -> Document:
    return compose(live, desired, "gateway", "default", settle=(app,))


def test_a_document_names_the_certificates_of_its_routes() -> None:
    """By hash and end, or by the paths on the gateways; none that no route names."""
    document = published(tree(Route(tls="example"), Route(tls="files", listen=5)))
    assert document.certificates == (
        Named("example", "a" * 64, "2026-12-20T00:00:00Z"),
        Named("files", chain_path="/etc/c.pem", key_path="/etc/k.pem"),
    )
    assert published(tree(Route()), document).certificates == ()


def test_a_renewed_certificate_is_a_difference() -> None:
    """What is wanted is compared with what is live, certificates too; the cause says from when to when."""
    before = tree(Route(tls="example"))
    after = tree(Route(tls="example"), certificates=(NEW,))
    live = settled_by_app(published(before))["web"]
    assert set(live) == set(wanted_of(before.apps["web"], before, "gateway", "default"))
    wanted = set(wanted_of(after.apps["web"], after, "gateway", "default"))
    assert renewed(live, wanted) == "certificate example: valid until 2026-12-20 → 2027-03-20"
    assert published(after, published(before)).certificates[0].sha256 == "b" * 64
    other = tree(Route(tls="example", prefix="/x"), certificates=(dataclasses.replace(NEW, expires=OLD.expires),))
    said = renewed(live, set(wanted_of(other.apps["web"], other, "gateway", "default")))
    assert said == "routes or checks changed; certificate example changed, valid until 2026-12-20"
    assert renewed(live, live) == ""


def test_what_other_apps_name_is_carried_over() -> None:
    """Publishing one app leaves another's certificate; one name is one certificate, the newer one."""
    both = published(tree(Route(tls="example"), app="web"))
    both = published(tree(Route(tls="example", prefix="/b"), Route(tls="files"), app="api"), both, "api")
    assert [one.name for one in both.certificates] == ["example", "files"]
    newer = published(tree(Route(tls="example"), certificates=(NEW,)), both)
    assert [(one.name, one.sha256[:1]) for one in newer.certificates] == [("example", "b"), ("files", "")]
    assert {route.app for route in newer.routes} == {"api", "web"}


def test_what_is_put_back_keeps_the_newer_certificate() -> None:
    """Routes of before a failed update come back with today's certificate, or their own when there is no other."""
    before = published(tree(Route(tls="example")))
    then = of_app(before, "web")
    check(then)
    for known, sha in (((NEW,), "b"), ((), "a")):
        live = published(tree(Route(prefix="/new"), certificates=known), before)
        desired = tree(Route(prefix="/new"), certificates=known)
        back = compose(live, desired, "gateway", "default", restore=("web",), former=then)
        assert back.routes == then.routes
        assert [one.sha256[:1] for one in back.certificates] == [sha]


def test_keys_are_wanted_where_a_gateway_lacks_the_certificate() -> None:
    """Of those that the publication sets, in its group, from the tree; a gateway that is away is not asked."""
    desired = tree(Route(tls="example"), Route(tls="files", listen=5))
    document = published(desired)
    work = Publish("gateway", "default", settle=("web", "gone"))

    def observed(**members: Document | None) -> Observed:
        states = {
            name: ParticipantState("gateway", name, "default", "x", name != "away", document=held)
            for name, held in members.items()
        }
        return Observed(gateways=states)

    assert keys_wanted(desired, work, observed(gw1=document)) == ()
    assert keys_wanted(desired, work, observed(gw1=document, gw2=None)) == ("key",)
    assert keys_wanted(desired, work, observed(gw1=document, away=None)) == ()
    assert keys_wanted(tree(Route(tls="example"), certificates=(NEW,)), work, observed(gw1=document)) == ("key",)
    assert keys_wanted(desired, Publish("gateway", "default"), observed(gw2=None)) == ()
    assert keys_wanted(desired, Publish("dns", "default", settle=("web",)), observed(gw2=None)) == ()


def test_certificates_that_the_tree_has_not() -> None:
    """Nothing is made up."""
    bare = tree(Route(tls="example"), certificates=())
    assert certificates_of(bare, routes_of(bare.apps["web"], "default")) == ()


def test_what_a_gateway_is_not_told_and_can_not_be_asked_is_said() -> None:
    """A script that takes endpoints alone, and lists nothing: by file and gateway."""
    said = caveats(tree(Route(prefix="/a")), [gateway("hosts_and_paths", "reads_back")], NOW)
    who = "gateways/gw2.xml:1: gw2 (plain)"
    assert said == (
        f"{who} is not told of domains and prefixes of routes: they are yours to set there",
        f"{who} has no `list`: what it serves is not read back, what was last done there counts",
    )
    assert caveats(tree(Route()), [gateway("hosts_and_paths")], NOW) == ()


def test_a_script_can_do_what_its_commands_are_told_of() -> None:
    """Variables in argument lists are its capabilities."""
    bare = Gateway("gw1", "script", "10.0.0.1", scripts=(Script("add", ("a", "${ip}")), Script("remove", ("b",))))
    means = capabilities(bare)
    assert means == Capabilities(**dict.fromkeys(SAID, False))
    route = Script("add-route", ("r", "${domains}", "${prefix}", "${chain}", "${listen}", "-w=${weight}"))
    more = capabilities(dataclasses.replace(bare, scripts=(*bare.scripts, route, Script("list", ("l",)))))
    told = {"tls", "weight", "routes_l4", "hosts_and_paths", "reads_back"}
    assert more == Capabilities(**dict.fromkeys(SAID - told, False))


def test_who_counts_no_requests_is_named_where_an_app_is_scaled_by_them() -> None:
    """With the line of its <scale>; not in groups that don't route to it, nor where something else is measured."""
    counting = dataclasses.replace(gateway(name="gw1"), capabilities=Capabilities(counts=True))
    scaled = tree(Route())
    web = dataclasses.replace(scaled.apps["web"], scale=Scale(1, 4, requests=5.0, where=Where("apps/web/app.xml", 3)))
    scaled = dataclasses.replace(scaled, apps={"web": web})
    (found,) = inexpressible(scaled, [counting, gateway()])
    assert str(found) == (
        "apps/web/app.xml:3: web is scaled by requests, which gw2 (plain) does not count; "
        "scale by something else, or route by Envoy or HAProxy"
    )
    assert inexpressible(scaled, [counting, dataclasses.replace(gateway(), group="other")]) == ()
    by_cpu = dataclasses.replace(web, scale=Scale(1, 4, cpu_percent=50.0))
    assert inexpressible(dataclasses.replace(scaled, apps={"web": by_cpu}), [gateway()]) == ()
