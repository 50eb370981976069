"""Images on a real node: from a registry, from an archive, or not at all, each with its own message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k4t.errors import HostFull, ImageNotFound, PullFailed, RegistryAway, RegistryRefused, StepError
from k4t.model.state import Container
from k4t.node import images
from k4t.node.archive import Archive, read_archive
from k4t.node.create import Order
from k4t.node.docker import Engine
from k4t.node.reference import Resolved, alias, pinned
from tests.lab import Host, Lab
from tests.node.faulty import Faulty

pytestmark = pytest.mark.integration

UNKNOWN = "sha256:" + "0" * 64
PROTECTED = """
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /tmp/protected}}
http: {addr: "127.0.0.1:5999"}
auth: {htpasswd: {realm: lab, path: /tmp/htpasswd}}
"""


class Shown:
    def __init__(self) -> None:
        self.fractions: list[float] = []

    def __call__(self, text: str, fraction: float | None) -> None:
        assert text
        assert fraction is not None
        self.fractions.append(fraction)


def forget(host: Host, *references: str) -> None:
    for reference in references:
        host.docker(["rmi", "-f", reference], check=False)


def test_a_tag_becomes_a_digest_and_is_pulled_by_it(engine: Engine, host: Host, lab: Lab) -> None:
    """Resolved through the node, pulled with progress, tagged as the reference; a second time nothing is done."""
    reference = lab.push("pulled", VER="p")
    found = images.resolve(engine, reference, None)
    assert found.digest.startswith("sha256:")
    assert found.archs
    assert not images.present(engine, found)
    shown = Shown()
    assert images.pull(engine, found, None, shown) == "pulled"
    assert images.present(engine, found)
    assert shown.fractions == sorted(shown.fractions)
    assert shown.fractions[-1] == 1.0
    assert engine.image(reference) == engine.image(pinned(found))
    assert images.pull(engine, found, None, shown) == "is there"
    forget(host, reference, pinned(found))


def test_an_unknown_tag_is_not_found(engine: Engine, lab: Lab) -> None:
    """The registry answers, and has no such image: for a tag and for a digest."""
    reference = f"{lab.registry}/tiny:nonesuch"
    with pytest.raises(ImageNotFound, match=f"{lab.registry} has no image {reference}"):
        images.resolve(engine, reference, None)
    with pytest.raises(ImageNotFound, match="has no image"):
        images.pull(engine, Resolved(reference, UNKNOWN), None, Shown())


def test_a_registry_that_is_away_is_said(engine: Engine, host: Host) -> None:
    """Nothing listens there; where the node has the image and may use it, it does."""
    reference = f"{host.address}:5999/tiny:1"
    with pytest.raises(RegistryAway, match=f"{host.address}:5999 does not answer: .*connection refused"):
        images.resolve(engine, reference, None)
    with pytest.raises(RegistryAway):
        images.pull(engine, Resolved(reference, UNKNOWN), None, Shown())


def test_what_the_node_has_counts_when_no_registry_has_it(engine: Engine, host: Host, lab: Lab) -> None:
    """By id, unless every apply has to ask; such an image can't be pulled elsewhere, and that is said."""
    reference = f"{host.address}:5999/mine:1"
    host.docker(["tag", lab.image, reference])
    id = host.docker(["inspect", "-f", "{{.Id}}", reference]).stdout.strip()
    found = images.resolve(engine, reference, None)
    assert found.digest == f"id:{id}"
    assert images.resolve(engine, reference, None, policy="never") == found
    with pytest.raises(RegistryAway):
        images.resolve(engine, reference, None, policy="always")
    assert images.pull(engine, found, None, Shown()) == "is there"
    with pytest.raises(ImageNotFound, match="in no registry"):
        images.pull(engine, Resolved(reference, f"id:{UNKNOWN}"), None, Shown())
    with pytest.raises(ImageNotFound, match='pull="never"'):
        images.resolve(engine, f"{host.address}:5999/other:1", None, policy="never")
    forget(host, reference)


@pytest.fixture
def protected(host: Host) -> Iterator[str]:
    """A registry on the node itself that wants a login."""
    import bcrypt

    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4, prefix=b"2a")).decode()
    for path, text in (("/tmp/protected.yml", PROTECTED), ("/tmp/htpasswd", f"ci:{hashed}\n")):
        host.exec(["sh", "-c", 'cat > "$1"', "sh", path], input=text)
    host.spawn("protected", ["docker-registry", "serve", "/tmp/protected.yml"], listens_on=5999)
    yield "127.0.0.1:5999"
    host.stop("protected")


def test_a_registry_that_wants_another_login_is_said(engine: Engine, host: Host, lab: Lab, protected: str) -> None:
    """No login, a wrong one, the right one; the element that gives one is named."""
    reference = f"{protected}/tiny:1"
    host.docker(["tag", lab.image, reference])
    host.docker(["login", "-u", "ci", "-p", "right", protected])
    host.docker(["push", "-q", reference])
    host.docker(["logout", protected])
    host.docker(["rmi", reference])
    for login in (None, ("ci", "wrong")):
        with pytest.raises(RegistryRefused, match=f'give it a <registry host="{protected}"'):
            images.resolve(engine, reference, login)
        with pytest.raises(RegistryRefused):
            images.pull(engine, Resolved(reference, UNKNOWN), login, Shown())
    found = images.resolve(engine, reference, ("ci", "right"))
    assert images.pull(engine, found, ("ci", "right"), Shown()) in {"pulled", "is there"}
    forget(host, reference)


def test_a_full_disk_has_its_own_message(engine: Engine, host: Host, lab: Lab) -> None:
    """While pulling and while loading; with space again, it goes on."""
    reference = lab.push("big", VER="b")
    found = images.resolve(engine, reference, None)
    path = lab.archive("big", VER="bb")
    host.exec(["sh", "-c", "docker image ls -q | xargs docker rmi -f"])
    host.exec(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/var/lib/docker/tmp"])
    try:
        with pytest.raises(HostFull, match=r"no space left for Docker .*docker image prune"):
            images.pull(engine, found, None, Shown())
        with pytest.raises(HostFull):
            images.load(engine, path, images.archive_image(path, "big:1"), Shown())
    finally:
        host.exec(["umount", "/var/lib/docker/tmp"])
    assert images.pull(engine, found, None, Shown()) == "pulled"
    lab.pull()
    forget(host, reference)


def test_an_archive_is_sent_checked_and_tagged(engine: Engine, host: Host, lab: Lab) -> None:
    """The node gets the image it lacks, under the app's reference, and is not sent it twice."""
    path = lab.archive("sent", VER="s")
    found = images.archive_image(path, "web.example/sent:7")
    assert not images.present(engine, found)
    shown = Shown()
    assert images.load(engine, path, found, shown) == "loaded"
    assert images.present(engine, found)
    assert shown.fractions == sorted(shown.fractions)
    assert shown.fractions[-1] == 1.0
    listed = host.docker(["image", "ls", "-q", "--no-trunc", "web.example/sent:7"]).stdout.strip()
    assert f"id:{listed}" == found.digest
    assert images.load(engine, path, found, shown) == "is there"
    forget(host, listed)


def test_a_saved_image_is_recognized(engine: Engine, host: Host, lab: Lab) -> None:
    """What this Engine saves is identified by the id that it has there."""
    path = lab.directory / "saved.tar"
    host.docker(["save", "-o", str(path), lab.image])
    assert read_archive(path).config == host.docker(["inspect", "-f", "{{.Id}}", lab.image]).stdout.strip()


def test_a_changed_archive_is_not_sent(engine: Engine, lab: Lab) -> None:
    """The file is not the one that was planned for."""
    with pytest.raises(StepError, match="has changed since the plan was made"):
        images.load(engine, lab.archive("other", VER="o"), Resolved("x:1", f"id:{UNKNOWN}"), Shown())


def test_a_damaged_archive_is_refused_by_the_engine(
    engine: Engine, tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the middle of a layer: the message says what the Engine says."""
    whole = lab.archive("cut", VER="c")
    found = images.archive_image(whole, "cut:1")
    archive = read_archive(whole)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    monkeypatch.setattr(images, "read_archive", lambda _: archive)
    with pytest.raises((PullFailed, StepError)):
        images.load(engine, cut, found, Shown())
    assert not images.present(engine, found)


def test_a_pull_that_fails_half_way_leaves_the_old_image(
    engine: Engine, host: Host, lab: Lab, transport: Faulty, request: pytest.FixtureRequest
) -> None:
    """The registry goes away between resolve and pull: said, and what the node has stays."""
    reference = lab.push("half", VER="h")
    found = images.resolve(engine, reference, None)
    registry = lab.host("reg")
    registry.cut()
    request.addfinalizer(registry.restore)
    refused = Resolved(reference.replace(str(lab.registry), f"{host.address}:5998"), found.digest)
    with pytest.raises(PullFailed):
        images.pull(engine, refused, None, Shown())
    assert engine.image(lab.image) is not None


@pytest.mark.parametrize("known_by", ["manifest", "layers"])
def test_an_engine_that_knows_images_by_manifests_keeps_an_alias(
    engine: Engine, make: Callable[[Order], Container], order: Callable[..., Order], lab: Lab, known_by: str
) -> None:
    """containerd's store can't be asked for a configuration's digest: a tag stands for it, also for create.

    The Engine here has the classic store; the archive is made to look as one that has become another id there.
    """
    path, known = lab.archive("alias", VER="a"), lab.archive("alias", VER="a")
    real = read_archive(known)
    foreign = f"sha256:{'b' * 64}"
    images.load(engine, path, Resolved("plain:1", f"id:{real.config}"), Shown())
    manifest = real.config if known_by == "manifest" else ""
    wanted = Resolved("web.example/alias:1", f"id:{foreign}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "read_archive", lambda _: Archive(foreign, manifest, real.tags, real.arch, real.layers))
        assert images.load(engine, path, wanted, Shown()) == "loaded"
        assert images.load(engine, path, wanted, Shown()) == "is there"
    made = make(order("web.example/alias:1", found_by=pinned(wanted)))
    found = engine.inspect(made.id)
    assert found is not None
    assert found["Image"] == real.config
    forget(lab.host("n1"), made.id, alias(wanted), "web.example/alias:1", "plain:1", real.config)
