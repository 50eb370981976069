"""The kit of a tree: which hosts stand on it, where it may be written, when it no longer fits."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from k4t.errors import HostKeyChanged, HostKeyUnknown, Usage
from k4t.master.backup import keys, kits
from k4t.master.backup.kit import Kit, KitHost, page, parse
from k4t.master.backup.recover import Asked, from_here, hosts_to_ask
from k4t.model.snapshot import Recovery
from k4t.model.spec import Tree
from k4t.remote.known_hosts import Fingerprints, HostKey, enrol
from k4t.remote.known_hosts import parse as parse_hosts
from k4t.remote.ssh import Connector
from k4t.tree.create import create
from k4t.tree.read import read_tree
from tests.remote.sshd import Sshd, serve

pytestmark = pytest.mark.unit
AT = "2026-11-20T12:00:00Z"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Two nodes behind a jump host, one copy on a node and one on a host that is none."""
    monkeypatch.setenv("K4T_KEYS", str(tmp_path / "keys"))
    db = tmp_path / "db"
    create(db, "prod")
    path = db / "cluster.xml"
    own = '<ssh user="root" jump="ops@bastion:2200" sudo="true"/>\n<backup node="b"/><backup host="safe@vault:2022"/>'
    path.write_text(path.read_text().replace('<ssh user="root"/>', own))
    for name, number in (("a", 1), ("b", 2)):
        (db / "nodes" / f"{name}.xml").write_text(f'<node address="10.0.0.{number}"/>')
    keys.ensure(db, read_tree(db), AT)
    return read_tree(db)


def made(tree: Tree, db: Path) -> tuple[Kit, tuple[str, ...]]:
    assert isinstance(tree.recovery, Recovery)
    environ = {"HOME": str(db.parent / "home"), "PATH": "/usr/bin:/bin"}
    way = Connector([db / "known_hosts"], run_id="test", environ=environ).way
    return kits.kit_of(tree, tree.recovery, way, f"{AT} by anna")


def test_targets_come_first_and_the_way_there_is_said(tree: Tree, tmp_path: Path) -> None:
    """User, port, jump and sudo as a machine without any configuration needs them."""
    kit, notes = made(tree, tmp_path / "db")
    assert [(one.name, one.place, one.backup) for one in kit.hosts] == [
        ("b", "root@10.0.0.2:22", True),
        ("safe@vault:2022", "safe@vault:2022", True),
        ("a", "root@10.0.0.1:22", False),
    ]
    assert {one.jump for one in kit.hosts} == {"ops@bastion:2200"}
    assert all(one.sudo for one in kit.hosts)
    assert [one.place for one in kit.jumps] == ["ops@bastion:2200"]
    assert kit.identity.startswith("AGE-SECRET-KEY-1")
    assert len([note for note in notes if "is not enrolled" in note]) == 3
    assert parse(page(kit)) == kit


def test_a_page_with_the_identity_is_not_written_over(tree: Tree, tmp_path: Path) -> None:
    """Not by one without it, nor by another cluster's; nor any file that is no kit."""
    kit, _ = made(tree, tmp_path / "db")
    path = tmp_path / "kit.txt"
    kits.write(path, page(kit))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kits.write(path, page(dataclasses.replace(kit, made="later")))
    for other in (dataclasses.replace(kit, identity=""), dataclasses.replace(kit, id="another1")):
        with pytest.raises(Usage, match="name another file"):
            kits.write(path, page(other))
    path.write_text("shopping list")
    with pytest.raises(Usage, match="no kit"):
        kits.write(path, page(kit))


def test_forgetting_needs_a_page(tree: Tree, tmp_path: Path) -> None:
    """And says where a file still has it. After it, kits have no identity, and copies are signed as before."""
    kit, _ = made(tree, tmp_path / "db")
    with pytest.raises(Usage, match="first: k4t kit --write"):
        kits.forget(tree.cluster.id)
    path = tmp_path / "kit.txt"
    kits.write(path, page(kit))
    kits.remember(kit, path)
    gone, still = kits.forget(tree.cluster.id)
    assert still == str(path)
    assert not gone.exists()
    assert made(tree, tmp_path / "db")[0].identity == ""
    assert keys.load(tree) is not None
    with pytest.raises(Usage, match="taken off"):
        kits.forget(tree.cluster.id)


def test_what_changed_since_is_named(tree: Tree, tmp_path: Path) -> None:
    """Hosts that came, went, moved or hold copies now; and doctor hears of it."""
    kit, _ = made(tree, tmp_path / "db")
    kits.remember(kit)
    assert kits.outdated(kit) == ""
    first, second, third = kit.hosts
    moved = dataclasses.replace(third, host="10.0.0.9", backup=True, key_type="ED25519", key=f"SHA256:{'x' * 43}")
    now = dataclasses.replace(kit, hosts=(first, moved, KitHost("c", "root", "10.0.0.3")))
    said = kits.differences(kit, now)
    assert said == [
        f"a has another host key: ED25519 SHA256:{'x' * 43}",
        "a is at root@10.0.0.9:22 via ops@bastion:2200, not root@10.0.0.1:22",
        "a holds copies now",
        "c is not in it",
        f"{second.name} is no host of the tree any more",
    ]
    assert AT in kits.outdated(now)
    assert kits.differences(dataclasses.replace(kit, id="another1"), kit)[0].startswith("it is the kit of another")


def test_who_is_asked(tree: Tree, tmp_path: Path) -> None:
    """Named hosts first, each once, with what the kit knows of them; --jump leads to all."""
    kit, _ = made(tree, tmp_path / "db")
    asked = Asked(kit, tmp_path / "new", sources=("10.0.0.1", "root@10.9.9.9:2222"), jump="ops@outside")
    assert [(one.name, one.place, one.sudo) for one in hosts_to_ask(asked)] == [
        ("a", "root@10.0.0.1:22", True),
        ("root@10.9.9.9:2222", "root@10.9.9.9:2222", True),
        ("b", "root@10.0.0.2:22", True),
        ("safe@vault:2022", "safe@vault:2022", True),
    ]
    assert {one.jump for one in hosts_to_ask(asked)} == {"ops@outside"}
    with pytest.raises(Usage, match="user@host:port"):
        hosts_to_ask(dataclasses.replace(asked, sources=("root@host:http",)))


def test_the_tree_as_this_machine_can_use_it(tree: Tree, tmp_path: Path) -> None:
    """A key that the tree names and this machine doesn't have is not insisted on; who was silent is not waited for."""
    (tmp_path / "key").write_text("")
    named = dataclasses.replace(tree.cluster.ssh, key=str(tmp_path / "gone"), jump="")
    tree = dataclasses.replace(tree, cluster=dataclasses.replace(tree.cluster, ssh=named))
    bare = from_here(tree, "", "ops@outside", {"a"})
    assert (bare.cluster.ssh.key, bare.cluster.ssh.jump) == ("", "ops@outside")
    assert bare.nodes["a"].ssh.connect_timeout_s == 2.0
    assert bare.nodes["b"].ssh.connect_timeout_s is None
    assert from_here(tree, str(tmp_path / "key"), "", ()).cluster.ssh.key == str(tmp_path / "key")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serve(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def enrolled(sshd: Sshd, kind: str) -> tuple[str, str]:
    """Type and fingerprint of one of its keys."""
    key = parse_hosts(f"x {sshd.host_key(kind)}".encode())[0].key
    return key.short_type, key.fingerprint


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_host_is_known_by_its_fingerprint_alone(sshd: Sshd, kind: str) -> None:
    """Whichever of its keys the kit has is the one that is asked for; also at an address that the kit doesn't know."""
    for name in (sshd.name, "elsewhere"):
        trusted = Fingerprints([(name, *enrolled(sshd, kind))])
        connector = Connector((), run_id="test", environ=sshd.environ(), trusted=trusted)
        with_key = connector.connect("n", sshd.ssh, "127.0.0.1")
        assert with_key.run(["true"]).ok
        with_key.close()
        connector.close()


@pytest.mark.integration
def test_a_host_with_any_other_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    """Before anything is sent; files that know the host better decide."""
    strange = Fingerprints([(sshd.name, "ED25519", f"SHA256:{'x' * 43}")])
    with pytest.raises(HostKeyUnknown) as caught:
        Connector((), run_id="test", environ=sshd.environ(), trusted=strange).connect("n", sshd.ssh, "127.0.0.1")
    assert f"--trust {enrolled(sshd, 'ed25519')[1]}" in str(caught.value)
    other = tmp_path / "known_hosts"
    enrol(other, [sshd.name], [HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + bytes(36))])
    files = Fingerprints([(sshd.name, *enrolled(sshd, "ed25519"))], [other])
    with pytest.raises(HostKeyChanged):
        Connector((), run_id="test", environ=sshd.environ(), trusted=files).connect("n", sshd.ssh, "127.0.0.1")
