"""Keys: made once, kept to themselves, certified by the cluster's, refused when others could have read them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from k4t.errors import BadCopy, K4tError, Locked, NotCertified, Usage
from k4t.master.backup import envelope, keys, snapshot
from k4t.master.backup.keys import Keys, keys_directory, recovery_identity
from k4t.model.snapshot import Certificate
from k4t.model.spec import Tree
from k4t.tree import age, files, recovery, signing
from k4t.tree.read import read_recovery, read_tree
from tests.backup.trees import AT, Cluster, make
from tests.tree.support import write_tree

pytestmark = pytest.mark.unit
ID = "k7f3q2m9"


@dataclass
class Machine:
    """A master: its tree, and where its keys are."""

    db: Path
    config: Path

    @property
    def tree(self) -> Tree:
        return read_tree(self.db)

    @property
    def keys(self) -> Path:
        return self.config / "k4t" / "clusters" / ID

    def ensure(self) -> tuple[Keys, tuple[str, ...]]:
        return keys.ensure(self.db, self.tree, AT)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("K4T_KEYS", raising=False)
    monkeypatch.setenv("K4T_IDENTITY", str(tmp_path / "no-identity"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Machine(write_tree(tmp_path / "db", {}), tmp_path / "config")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def works(found: Keys, cluster_key: str) -> bool:
    """A copy that these keys sign is a good one."""
    cluster = Cluster(id=found.cluster)
    header = make(cluster, b"tree", keys=found).header
    return snapshot.check(header, cluster=found.cluster, cluster_key=cluster_key).cluster == found.cluster


# --- made ------------------------------------------------------------------------------------------------------------


def test_a_tree_without_keys_gets_them(machine: Machine) -> None:
    """All of them, at the first copy: said once, with what to do. The second time nothing changes."""
    old = os.umask(0)
    try:
        first, notes = machine.ensure()
    finally:
        os.umask(old)
    assert len(notes) == 2
    assert notes[0] == f"made {machine.db}/recovery.xml: commit it with the tree"
    assert "k4t kit" in notes[1]
    assert "k4t kit --forget" in notes[1]
    tree = machine.tree
    assert tree.recovery is not None
    assert works(first, tree.recovery.key)
    before = {path: path.read_bytes() for path in [machine.db / "recovery.xml", *machine.keys.iterdir()]}
    second, notes = machine.ensure()
    assert notes == ()
    assert (second.private, second.certificate) == (first.private, first.certificate)
    assert keys.load(tree) is not None
    assert {path: path.read_bytes() for path in [machine.db / "recovery.xml", *machine.keys.iterdir()]} == before


def test_keys_are_for_nobody_else_to_read(machine: Machine) -> None:
    """Files 0600, directories 0700, whatever the umask; recovery.xml is a file of the tree like others."""
    old = os.umask(0)
    try:
        machine.ensure()
    finally:
        os.umask(old)
    assert {path.name: mode(path) for path in machine.keys.iterdir()} == {
        ".lock": 0o600, "signing-key": 0o600, "certificate.json": 0o600, "recovery-identity": 0o600,
        "recovery.xml": 0o600,
    }  # fmt: skip
    for directory in (machine.keys, machine.keys.parent, machine.keys.parent.parent):
        assert mode(directory) == 0o700
    assert mode(machine.db / "recovery.xml") == 0o644


def test_no_private_key_is_in_the_tree_or_in_what_is_said(machine: Machine) -> None:
    """Neither raw nor encoded, in no file, note or repr."""
    found, notes = machine.ensure()
    identity = (machine.keys / "recovery-identity").read_text()
    private = keys.sealed_key(found.recovery, recovery_identity(ID))
    said = " ".join([*notes, repr(found), str(machine.tree)]).encode()
    in_tree = b"".join(path.read_bytes() for path in machine.db.rglob("*") if path.is_file())
    secret = identity.split("AGE-SECRET-KEY-1")[1].strip()
    for one in (private, found.private):
        for form in (one, base64.b64encode(one), one.hex().encode()):
            assert form not in said + in_tree
    assert secret.encode() not in said + in_tree
    assert signing.public_of(private) == found.recovery.key


def test_two_at_once_make_one_set_of_keys(machine: Machine) -> None:
    """Both go on with the same."""
    found: list[Keys] = []
    together = threading.Barrier(4)
    tree = machine.tree

    def one() -> None:
        together.wait()
        found.append(keys.ensure(machine.db, tree, AT)[0])

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(one.private, one.certificate, one.recovery.key) for one in found}) == 1
    assert len(found) == 4


def test_two_users_of_one_tree_make_one_cluster_key(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with keys of its own: the one that comes second is told to get certified, and keeps no false identity."""
    creating = recovery.create

    def another_comes_first(db: Path, mine: Any) -> bool:
        monkeypatch.setattr(recovery, "create", creating)
        monkeypatch.setenv("K4T_KEYS", str(machine.db.parent / "theirs"))
        keys.ensure(db, read_tree(db), AT)
        monkeypatch.delenv("K4T_KEYS")
        return creating(db, mine)

    monkeypatch.setattr(recovery, "create", another_comes_first)
    with pytest.raises(NotCertified, match=r"k4t kit certify --kit FILE"):
        machine.ensure()
    assert not (machine.keys / "recovery-identity").exists()
    theirs = machine.db.parent / "theirs" / ID / "recovery-identity"
    assert age.recipient_of(theirs) in (machine.db / "recovery.xml").read_text()


@pytest.mark.parametrize("kept", [(), ("recovery-identity",), ("recovery-identity", "signing-key")])
def test_making_keys_that_was_cut_off_is_taken_up(machine: Machine, kept: tuple[str, ...]) -> None:
    """Killed between any two files: the next run goes on with what there is, and nothing is encrypted to a lost key."""
    machine.ensure()
    for path in machine.keys.iterdir():
        if path.name not in kept:
            path.unlink()
    (machine.db / "recovery.xml").unlink()
    before = {name: (machine.keys / name).read_bytes() for name in kept}
    found, _ = machine.ensure()
    assert works(found, found.recovery.key)
    assert {name: (machine.keys / name).read_bytes() for name in kept} == before
    assert keys.sealed_key(found.recovery, recovery_identity(ID))


def test_a_recovery_xml_that_got_lost_comes_back(machine: Machine) -> None:
    """A checkout without it must not begin with another cluster key: old copies would be foreign then."""
    first, _ = machine.ensure()
    (machine.db / "recovery.xml").unlink()
    second, notes = machine.ensure()
    assert (second.private, second.recovery.key) == (first.private, first.recovery.key)
    assert notes == (f"{machine.db}/recovery.xml was gone and is back: keep it with the tree, in git too",)


def test_a_tree_keeps_its_sha256(machine: Machine) -> None:
    """recovery.xml is like known_hosts: there is nothing to apply because of it."""
    before = machine.tree.sha256
    machine.ensure()
    assert machine.tree.sha256 == before
    assert not files.counts("recovery.xml")


# --- certified -------------------------------------------------------------------------------------------------------


def test_another_machine_is_certified_with_the_kit(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there is one clear error, at every command that would sign; with it a key of its own."""
    first, _ = machine.ensure()
    identities = recovery_identity(ID)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine.db.parent / "laptop"))
    assert keys.load(machine.tree) is None
    with pytest.raises(NotCertified) as caught:
        machine.ensure()
    assert str(caught.value) == (
        "this machine may make no copies of k7f3q2m9: its key is not certified; "
        "k4t kit certify --kit FILE, with the cluster's recovery kit"
    )
    made = keys.certify(ID, first.recovery, identities, AT)
    assert made.private != first.private
    assert works(made, first.recovery.key)
    assert machine.ensure() == (keys.load(machine.tree), ())
    assert not (keys_directory(ID) / "recovery-identity").exists()


def test_a_machine_that_keeps_the_identity_certifies_itself(machine: Machine) -> None:
    """Its signing key was lost, or never made."""
    first, _ = machine.ensure()
    (machine.keys / "signing-key").unlink()
    second, notes = machine.ensure()
    assert notes == ("this machine's key was certified with the recovery identity that is kept here",)
    assert second.private != first.private
    assert works(second, first.recovery.key)


def test_a_certificate_for_another_use_signs_no_copies(machine: Machine) -> None:
    """A monitor's may leave intents, and that is all."""
    first, _ = machine.ensure()
    identities = recovery_identity(ID)
    (machine.keys / "recovery-identity").unlink()
    made = keys.certify(ID, first.recovery, identities, AT, ("intents",))
    with pytest.raises(BadCopy, match="certified for intents, not for snapshots"):
        works(made, first.recovery.key)
    assert keys.load(machine.tree) is None
    with pytest.raises(NotCertified):
        machine.ensure()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: {**found, "certified": base64.b64encode(bytes(64)).decode()},
        lambda found: {**found, "certificate": found["certificate"].replace(ID, "another1")},
        lambda _: {"certificate": 1},
        lambda _: [],
        lambda _: stranger(),
    ],
)
def test_a_certificate_that_is_not_right_counts_for_nothing(machine: Machine, spoil: Callable[[Any], Any]) -> None:
    """Damaged, of another cluster, or another key's: as if there were none."""
    machine.ensure()
    path = machine.keys / "certificate.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    assert keys.load(machine.tree) is None
    (machine.keys / "recovery-identity").unlink()
    with pytest.raises(NotCertified):
        machine.ensure()


def stranger() -> dict[str, str]:
    cluster = Cluster(id=ID)
    text = envelope.certificate_text(Certificate(ID, signing.public_of(cluster.machine), keys.USES, AT))
    return {"certificate": text, "certified": envelope.certify(cluster.private, text)}


def test_a_new_cluster_key_voids_old_certificates(machine: Machine) -> None:
    """After the tree has another recovery.xml, this machine is not certified any more."""
    machine.ensure()
    recovery.write(machine.db, Cluster(id=ID).recovery)
    assert keys.load(machine.tree) is None
    with pytest.raises(NotCertified):
        machine.ensure()


# --- the sealed key --------------------------------------------------------------------------------------------------


def test_the_sealed_key_opens_with_the_recovery_identity_alone(machine: Machine) -> None:
    """Another identity doesn't, and the words say which is needed."""
    cluster, other = Cluster(id=ID), Cluster(id=ID)
    assert keys.sealed_key(cluster.recovery, cluster.identities) == cluster.private
    with pytest.raises(age.NoIdentity, match="use the recovery kit of this cluster"):
        keys.sealed_key(cluster.recovery, other.identities)
    mixed = replace(cluster.recovery, key=other.key)
    with pytest.raises(BadCopy, match="is not that of the cluster's public key"):
        keys.sealed_key(mixed, cluster.identities)
    for sealed, says in (("!", "is not base64"), (base64.b64encode(b"x" * 60).decode(), "no age file")):
        with pytest.raises(K4tError, match=says):
            keys.sealed_key(replace(cluster.recovery, sealed_key=sealed), cluster.identities)


def test_recovery_xml_reads_as_it_was_written(tmp_path: Path) -> None:
    """Also with names that XML would choke on, and several recipients."""
    found = Cluster().recovery
    two = replace(found.recipients[0], name='the "safe" & <door>')
    wanted = replace(found, recipients=(*found.recipients, two))
    write_tree(tmp_path, {"recovery.xml": recovery.encoded(wanted)})
    for read in (read_recovery(tmp_path), read_tree(tmp_path).recovery):
        assert read is not None
        assert replace(read, where=wanted.where) == wanted


# --- where, and who may read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["signing-key", "certificate.json", "recovery-identity"])
@pytest.mark.parametrize("bits", [0o040, 0o004, 0o020])
def test_a_key_that_others_may_read_is_refused(machine: Machine, name: str, bits: int) -> None:
    """With the command that puts it right; it is not silently used, and not silently changed."""
    machine.ensure()
    path = machine.keys / name
    path.chmod(0o600 | bits)
    if name != "recovery-identity":
        with pytest.raises(K4tError, match=f"has mode 0{0o600 | bits:o}: others may get at it; chmod 600 {path}"):
            keys.load(machine.tree)
    (machine.keys / "certificate.json").unlink() if name == "recovery-identity" else None
    with pytest.raises(K4tError, match=f"chmod 600 {path}"):
        machine.ensure()
    assert mode(path) == 0o600 | bits


def test_a_directory_that_others_may_enter_is_refused(machine: Machine) -> None:
    """With the command that puts it right."""
    machine.ensure()
    machine.keys.chmod(0o755)
    with pytest.raises(K4tError, match=f"{machine.keys} has mode 0755: others may get at it; chmod 700 {machine.keys}"):
        machine.ensure()


def test_links_and_directories_in_place_of_keys_are_refused(machine: Machine) -> None:
    """Nothing is read or written through them."""
    machine.ensure()
    path = machine.keys / "signing-key"
    path.rename(machine.db.parent / "elsewhere")
    path.symlink_to(machine.db.parent / "elsewhere")
    with pytest.raises(K4tError, match=f"can't read {path}"):
        machine.ensure()
    path.unlink()
    path.mkdir()
    with pytest.raises(K4tError, match=f"{path} is no regular file"):
        machine.ensure()


def test_a_signing_key_that_is_none_is_named(machine: Machine) -> None:
    """Not replaced: it may be somebody's only one, put there by mistake."""
    machine.ensure()
    path = machine.keys / "signing-key"
    for data in (b"", b"garbage", path.read_bytes()[:-3], b"\xff" * 60):
        path.write_bytes(data)
        with pytest.raises(K4tError, match=f"{path} is not a signing key of k4t's"):
            machine.ensure()
        assert path.read_bytes() == data


def test_another_process_is_waited_for_and_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bounded time."""
    machine.ensure()
    monkeypatch.setattr(keys, "LOCK_WAIT_S", 0.1)
    with keys.alone(machine.keys), pytest.raises(Locked, match="another k4t works on"):
        machine.ensure()


def test_a_directory_that_can_not_be_made_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is in the way; the tree is as it was."""
    machine.config.write_text("a file")
    with pytest.raises(K4tError, match=r"can't make .*config/k4t.*; set K4T_KEYS to a place of your own"):
        machine.ensure()
    assert not (machine.db / "recovery.xml").exists()


def nobody(_: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is mounted")
def test_a_full_disk_is_named(machine: Machine) -> None:
    """Nothing half-written is left, and the tree gets no recovery.xml whose identity could not be kept."""
    machine.config.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(machine.config)], check=True)
    try:
        full = machine.config / "full"
        with contextlib.suppress(OSError):
            full.write_bytes(bytes(1 << 20))
        with pytest.raises(K4tError, match="No space left on device"):
            machine.ensure()
        assert not (machine.db / "recovery.xml").exists()
        assert [path.name for path in machine.keys.iterdir()] == [".lock"]
        full.unlink()
        found, _ = machine.ensure()
        assert works(found, found.recovery.key)
    finally:
        subprocess.run(["umount", str(machine.config)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only tree is mounted")
def test_a_tree_that_can_not_be_written_is_named(machine: Machine) -> None:
    """With its path; the identity that was made is taken up when it can be."""
    db = str(machine.db)
    subprocess.run(["mount", "--bind", "-o", "ro", db, db], check=True)
    try:
        with pytest.raises(K4tError, match=f"can't write {db}/recovery.xml: Read-only file system"):
            machine.ensure()
    finally:
        subprocess.run(["umount", db], check=True)
    identity = (machine.keys / "recovery-identity").read_text()
    found, _ = machine.ensure()
    assert works(found, found.recovery.key)
    assert (machine.keys / "recovery-identity").read_text() == identity


def test_where_keys_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """K4T_KEYS, else XDG_CONFIG_HOME when it is absolute, else ~/.config; also without HOME."""
    monkeypatch.delenv("K4T_KEYS", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ops")
    assert keys_directory(ID) == Path("/home/ops/.config/k4t/clusters") / ID
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert keys_directory(ID) == Path("/home/ops/.config/k4t/clusters") / ID
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg")
    assert keys_directory(ID) == Path("/etc/xdg/k4t/clusters") / ID
    monkeypatch.setenv("K4T_KEYS", str(tmp_path))
    assert keys_directory(ID) == tmp_path / ID
    monkeypatch.delenv("K4T_KEYS")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME")
    assert keys_directory(ID).is_absolute()
    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(Usage, match="there is no home directory to keep keys in; set HOME, or K4T_KEYS"):
        keys_directory(ID)


@pytest.mark.parametrize("id_", ["", "..", "../../etc", "a/b", "a\0b", "K7F3", "x" * 50])
def test_no_id_leads_elsewhere(id_: str) -> None:
    """An id is a name in a directory, and comes from files that others wrote."""
    with pytest.raises(Usage, match="is not the id of a cluster"):
        keys_directory(id_)


# --- to open copies --------------------------------------------------------------------------------------------------


@dataclass
class Kit:
    identity: str


def test_what_opens_copies(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The named file alone; or the kit's, this machine's, and the operator's own."""
    with pytest.raises(age.NoIdentity, match=r"name the recovery kit \(--kit FILE\)"):
        recovery_identity(ID)
    machine.ensure()
    assert len(recovery_identity(ID)) == 1
    kit = Kit(Cluster().identity.splitlines()[-1])
    assert len(recovery_identity(ID, kit)) == 2
    assert len(recovery_identity(ID, Kit(""))) == 1
    own = tmp_path / "own"
    age.make_identity(own, "mine")
    monkeypatch.setenv("K4T_IDENTITY", str(own))
    assert len(recovery_identity(ID, kit)) == 3
    assert [str(one.to_public()) for one in recovery_identity(ID, kit, own)] == [age.recipient_of(own)]
    own.chmod(0o644)
    with pytest.raises(K4tError, match="others may read it"):
        recovery_identity(ID, None, own)
