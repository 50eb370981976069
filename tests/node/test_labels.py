"""Labels are on users' machines: what is written never changes, and anything may be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.model.state import BoundPort, container_name
from k4t.node.labels import PREFIX, Labels, build, parse
from k4t.node.listing import sort_out

pytestmark = pytest.mark.unit

WEB = Labels(
    cluster="k7f3q2m9",
    app="web",
    replica="0",
    generation=3,
    revision=44,
    spec="v1:abc",
    resources='{"memory":268435456}',
    ports=(BoundPort("admin", 20001), BoundPort("dns", 53, "udp"), BoundPort("main", 20000)),
    address="10.88.0.11",
)
WRITTEN = {
    "io.k4t.format": "1",
    "io.k4t.cluster": "k7f3q2m9",
    "io.k4t.app": "web",
    "io.k4t.replica": "0",
    "io.k4t.generation": "3",
    "io.k4t.revision": "44",
    "io.k4t.spec": "v1:abc",
    "io.k4t.resources": '{"memory":268435456}',
    "io.k4t.ports": '{"admin":"20001/tcp","dns":"53/udp","main":"20000/tcp"}',
    "io.k4t.address": "10.88.0.11",
}


def test_what_is_written_is_final() -> None:
    """These exact names and texts are on users' containers."""
    assert build(WEB) == WRITTEN
    assert container_name("prod", "web", "0", 3) == "prod.web.0.3"


def test_what_is_written_is_read_back() -> None:
    """Reading gives what was built, also with other labels around it."""
    assert parse({**WRITTEN, "org.opencontainers.image.title": "x"}) == WEB


@pytest.mark.parametrize(
    "change",
    [
        {"format": "2"},
        {"format": ""},
        {"cluster": ""},
        {"app": ""},
        {"generation": "x"},
        {"generation": "-1"},
        {"generation": "١"},
        {"revision": "9" * 40},
        {"ports": "{"},
        {"ports": "[]"},
        {"ports": '{"main":20000}'},
        {"ports": '{"main":"70000/tcp"}'},
        {"ports": '{"main":"80/sctp"}'},
        {"ports": "[" * 50_000},
    ],
)
def test_damaged_labels_are_nobodys(change: dict[str, str]) -> None:
    """A container whose labels can't be read is a stranger: never touched, never a crash."""
    labels = WRITTEN | {PREFIX + key: value for key, value in change.items()}
    containers, strangers = sort_out("n1", [{"Id": "1", "Names": ["/x"], "Labels": labels}], "k7f3q2m9")
    assert containers == ()
    assert [stranger.name for stranger in strangers] == ["x"]


@given(st.dictionaries(st.sampled_from(sorted(WRITTEN)), st.text(max_size=30)))
def test_no_text_breaks_the_reader(change: dict[str, str]) -> None:
    """Anyone can write labels: whatever they hold is read or refused, never raised."""
    read = parse(WRITTEN | change)
    assert read is None or isinstance(read.generation, int)


def test_other_clusters_are_strangers_with_their_ports() -> None:
    """Another cluster's container is known by its cluster, address and ports, and is not ours."""
    entry = {"Id": "1", "Names": ["/prod.web.0.3"], "Labels": WRITTEN, "State": "exited"}
    ((), (stranger,)) = sort_out("n1", [entry], "other")
    assert (stranger.cluster, stranger.address, stranger.ports) == ("k7f3q2m9", "10.88.0.11", WEB.ports)


def test_a_listing_becomes_containers() -> None:
    """State, health, image and the name without links come from the Engine's listing."""
    entry = {
        "Id": "f" * 64,
        "Names": ["/other/alias", "/prod.web.0.3"],
        "Image": "reg/web@sha256:1",
        "ImageID": "sha256:2",
        "Labels": WRITTEN,
        "State": "running",
        "Status": "Up 3 seconds (health: starting)",
        "Created": 17,
    }
    ((container,), ()) = sort_out("n1", [entry], "k7f3q2m9")
    assert (container.name, container.health, container.image, container.created_s) == (
        "prod.web.0.3",
        "starting",
        "reg/web@sha256:1",
        17,
    )
