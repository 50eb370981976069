"""The file of a copy: what it says, and that today's k4t reads what earlier ones wrote."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from k4t.errors import BadCopy
from k4t.master.backup import compress, pack, snapshot, unpack
from k4t.model.snapshot import Lineage, Manifest
from k4t.tree import age, signing
from tests.backup.trees import AT, Cluster, make, opened, packed, remembering, signed, working_copy

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden"
FIXED = Cluster(
    private=bytes(range(32)),
    machine=bytes(range(32, 64)),
    identity="AGE-SECRET-KEY-13A4UZPP3QGHQKEPF7CN47QVQN23V6W0VQ7K8CSE9758T7L8YA9UQYJHRW3",
)
MANIFEST = Manifest(
    cluster="k7f3q2m9", generation=2, lineage="0123456789abcdef", serial=41, sequence=7, time=AT,
    tree="11" * 32, previous="22" * 32, sha256="33" * 32, size_bytes=44, encrypted=True, archive_bytes=55,
)  # fmt: skip

LARGE = b"k4t\n" * (450 << 10)
"""A little less than 2 MiB."""


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


def golden(name: str, data: bytes) -> bytes:
    """The file, written anew with K4T_WRITE_CASES=1: formats are on users' machines, so never without a new number."""
    path = GOLDEN / name
    if os.environ.get("K4T_WRITE_CASES"):
        path.write_bytes(data)
    return path.read_bytes()


# --- pinned --------------------------------------------------------------------------------------------------------


def test_an_archive_is_these_bytes(tmp_path: Path) -> None:
    """The same tree makes the same archive with every release: an unchanged tree is not copied again."""
    archive = packed(remembering(tmp_path))
    assert archive == golden("archive.tar", archive)


def test_a_header_is_these_bytes() -> None:
    """With these keys and this manifest."""
    header = snapshot.header_of(MANIFEST, FIXED.keys())
    assert header == golden("header", header)
    assert snapshot.check(header, cluster=FIXED.id, cluster_key=FIXED.key) == MANIFEST


def test_a_confirmation_is_these_bytes() -> None:
    """With these keys and this manifest."""
    data = snapshot.confirmation(FIXED.keys(), "node1", MANIFEST, AT)
    assert data == golden("confirmed", data)
    found = snapshot.check_confirmation(data, cluster=FIXED.id, cluster_key=FIXED.key)
    assert found.target == snapshot.target_mark(FIXED.keys(), "node1") != snapshot.target_mark(FIXED.keys(), "node2")
    assert (
        found.snapshot == snapshot.digest(MANIFEST) == hashlib.sha256(snapshot.text_of(MANIFEST).encode()).hexdigest()
    )


@pytest.mark.parametrize("name", ["encrypted-xz", "encrypted-gzip", "clear-xz"])
def test_a_copy_of_an_earlier_k4t_is_read(name: str) -> None:
    """Each kind, as it was once written, gives the archive that was put in."""
    archive = (GOLDEN / "archive.tar").read_bytes()
    path = GOLDEN / f"{name}.snapshot"
    if os.environ.get("K4T_WRITE_CASES"):
        made = make(FIXED, archive, encrypted=name.startswith("encrypted"))
        if name.endswith("gzip"):
            packed_ = age.encrypt(b"".join(compress.gzipped(archive)), [FIXED.recovery.recipients[0].key])
            path.write_bytes(signed(FIXED, made, packed_))
        else:
            path.write_bytes(made.data)
    assert opened(FIXED, path.read_bytes()) == archive


def test_a_copy_with_large_files_of_an_earlier_k4t_is_read(tmp_path: Path) -> None:
    """With its parts beside it, under the names that they were given then."""
    remembering(tmp_path)
    (tmp_path / "apps/web/image.tar").write_bytes(LARGE)
    path, beside = GOLDEN / "large.snapshot", GOLDEN / "parts"
    if os.environ.get("K4T_WRITE_CASES"):
        picture = pack.picture(tmp_path)
        made = make(FIXED, picture.archive, large=picture.large)
        path.write_bytes(made.data)
        beside.mkdir(exist_ok=True)
        for old in beside.iterdir():
            old.unlink()
        for one in made.parts:
            (beside / one.name).write_bytes(made.part(one.name))
    _, archive = snapshot.contents(
        path.read_bytes(), cluster=FIXED.id, cluster_key=FIXED.key, identities=FIXED.identities,
        part=lambda name: (beside / name).read_bytes(),
    )  # fmt: skip
    assert unpack.member(archive, "apps/web/image.tar") == LARGE
    without = {name: unpack.member(archive, name) for name in unpack.listed(archive) if name != "apps/web/image.tar"}
    pinned = (GOLDEN / "archive.tar").read_bytes()
    assert without == {name: unpack.member(pinned, name) for name in unpack.listed(pinned)}


# --- what it says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("size", [0, 1, 100, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_what_was_put_in_comes_out(cluster: Cluster, size: int, encrypted: bool) -> None:
    """Whatever the size, compressible or not; and the header says so."""
    for archive in (b"ab" * (size // 2) + b"a" * (size % 2), os.urandom(size)):
        made = make(cluster, archive, encrypted=encrypted)
        manifest = snapshot.check(made.header, cluster=cluster.id, cluster_key=cluster.key)
        assert manifest == made.manifest
        assert (manifest.size_bytes, manifest.archive_bytes) == (len(made.payload), size)
        assert opened(cluster, made.data) == archive
        assert made.size_bytes == len(made.data)


def test_what_is_compressed_already_is_only_wrapped(cluster: Cluster) -> None:
    """An image archive costs no more than its size, and what compresses beside it still does."""
    archive = os.urandom(3 << 20) + bytes(2 << 20)
    made = make(cluster, archive, encrypted=False)
    assert 3 << 20 < len(made.payload) < (3 << 20) + 40_000
    assert opened(cluster, made.data) == archive


def test_a_header_fits_into_its_limit(cluster: Cluster) -> None:
    """Also with the longest id and the largest numbers."""
    long = replace(cluster, id="k" * 40)
    most = (1 << 62) - 1
    manifest = replace(MANIFEST, cluster=long.id, serial=most, sequence=most, generation=most, size_bytes=most)
    header = snapshot.header_of(manifest, long.keys())
    assert len(header) < 1500
    assert snapshot.check(header, cluster=long.id, cluster_key=long.key) == manifest


def test_the_same_tree_has_the_same_mark(cluster: Cluster) -> None:
    """It tells an unchanged tree before anything is compressed; another machine's key makes another one."""
    keys = cluster.keys()
    assert (
        make(cluster, b"tree").manifest.tree == snapshot.tree_mark(keys, b"tree") != snapshot.tree_mark(keys, b"other")
    )
    other = replace(cluster, machine=signing.new_private())
    assert snapshot.tree_mark(other.keys(), b"tree") != snapshot.tree_mark(keys, b"tree")
    assert snapshot.tree_mark(keys, b"tree") != hashlib.sha256(b"tree").hexdigest()


def test_names_sort_as_copies_do(cluster: Cluster) -> None:
    """Generation before serial before sequence; no clock has a say."""
    orders = [(1, 9, 3), (1, 10, 2), (2, 4, 9), (2, 999_999, 1), (2, 1_000_000, 1)]
    names = []
    for place, (generation, serial, sequence) in enumerate(orders):
        manifest = replace(MANIFEST, generation=generation, serial=serial, sequence=sequence)
        manifest = replace(manifest, time=f"20{40 - place}-01-01T00:00:00Z")
        names.append(snapshot.name_of(manifest))
        assert snapshot.order_of(names[-1]) == manifest.order
    assert names[:4] == sorted(names[:4])
    assert sorted(names, key=lambda name: snapshot.order_of(name) or ()) == names
    assert names[0] == "0001-000009-0000003-20400101T000000Z.snapshot"


@pytest.mark.parametrize(
    "name",
    ["", "confirmed", "0001-000009-0000003-20400101T000000Z.snapshot.tmp", "-1-2-3.snapshot", "../x", "٠٠٠١" * 9,
     "0001-000009-٠٠٠٠٠٠٣-20400101T000000Z.snapshot", "1" * 5000 + "-000009-0000003-20400101T000000Z.snapshot",
     "0001-000009-0000003-20400101T000000Z.snapshot\n"],
)  # fmt: skip
def test_other_names_have_no_order(name: str) -> None:
    """What else lies in the directory is not taken for a copy."""
    assert snapshot.order_of(name) is None


def test_only_recipients_open_a_copy(cluster: Cluster) -> None:
    """Each of several can, another identity can't, and none of that tells what is in it."""
    second = Cluster(id=cluster.id, private=cluster.private, machine=cluster.machine)
    both = replace(cluster.recovery, recipients=cluster.recovery.recipients + second.recovery.recipients)
    made = make(cluster, b"tree", keys=replace(cluster.keys(), recovery=both))
    assert opened(cluster, made.data) == opened(second, made.data) == b"tree"
    stranger = Cluster(id=cluster.id, private=cluster.private)
    with pytest.raises(age.NoIdentity):
        opened(stranger, made.data)
    with pytest.raises(age.NoIdentity):
        snapshot.contents(made.data, cluster=cluster.id, cluster_key=cluster.key, identities=[])


def test_an_unencrypted_copy_says_so(cluster: Cluster) -> None:
    """It needs no identity."""
    made = make(cluster, b"tree", encrypted=False)
    manifest, archive = snapshot.contents(made.data, cluster=cluster.id, cluster_key=cluster.key, identities=[])
    assert (manifest.encrypted, archive) == (False, b"tree")


def test_the_beginning_of_a_file_is_enough_to_check(cluster: Cluster) -> None:
    """As a target gives it: the line alone, without its line break, or some kilobytes of the file."""
    made = make(cluster, os.urandom(20_000))
    for header in (made.header, made.header[:-1], made.data[:4096], made.data):
        assert snapshot.check(header, cluster=cluster.id, cluster_key=cluster.key) == made.manifest


def test_a_copy_can_be_opened_by_hand(cluster: Cluster, tmp_path: Path) -> None:
    """Without k4t: cut the first line off, age, xz, tar."""
    import lzma
    import tarfile

    working_copy(tmp_path / "db")
    made = make(cluster, packed(tmp_path / "db"))
    (tmp_path / "a.tar").write_bytes(lzma.decompress(age.decrypt(made.data.split(b"\n", 1)[1], cluster.identities)))
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == list(unpack.listed(packed(tmp_path / "db")))
        file = archive.extractfile("apps/web/über.txt")
        assert file is not None
        assert file.read() == "grüße\n".encode()


def test_a_lineage_goes_into_the_manifest(cluster: Cluster) -> None:
    """Its generation and id; not who and when, which stay in the encrypted part."""
    made = make(cluster, b"", lineage=Lineage(3, "f" * 16, 9, "ops@laptop", AT))
    assert (made.manifest.generation, made.manifest.lineage) == (3, "f" * 16)
    assert b"laptop" not in made.header


@pytest.mark.parametrize("change", [{"time": "yesterday"}, {"serial": -1}, {"tree": "x"}, {"lineage": "a b"}])
def test_a_signed_manifest_must_make_sense(cluster: Cluster, change: dict[str, object]) -> None:
    """Also a right signature is no reason to believe nonsense."""
    made = make(cluster, b"tree")
    with pytest.raises(BadCopy, match="manifest is not what k4t writes"):
        opened(cluster, signed(cluster, made, made.payload, **change))


def test_base64_of_a_public_key_is_of_32_bytes() -> None:
    """The fixed keys of the golden files are what they say."""
    assert len(base64.b64decode(FIXED.key.removeprefix("ed25519:"))) == 32
