"""Who steals a node has copies: no name, address or secret is in them, in whatever form one looks for it."""

from __future__ import annotations

import base64
import codecs
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from k4t.master.backup import pack, snapshot
from k4t.master.backup.keys import Keys
from k4t.master.history import WorkingCopy
from k4t.model.snapshot import Lineage
from tests.backup.trees import AT, Cluster, make, packed
from tests.tree.support import write_tree

pytestmark = pytest.mark.unit
WORDS = (
    "flamingo-cluster", "flamingo.example.com", "paymentservice", "warehousedb", "node-aardvark", "10.111.222.33",
    "2001:db8:aaaa::33", "gw-badger", "ns-cormorant", "corp.internal.lan", "registry.dingo.example", "ops-elephant",
    "correct-horse-battery-staple", "KESTREL_TOKEN", "token-of-llama", "host-keys-of-marmot", "note-of-narwhal",
    "message-of-ocelot", "laptop-of-penguin", "backup-host-quokka", "hook-of-raccoon",
)  # fmt: skip


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("thief") / "db"
    write_tree(directory, {
        "cluster.xml": '<cluster name="flamingo-cluster" id="k7f3q2m9"><ssh user="ops-elephant"/>'
        '<variable name="domain">flamingo.example.com</variable><backup host="backup-host-quokka"/></cluster>',
        "nodes/node-aardvark.xml": '<node address="10.111.222.33, 2001:db8:aaaa::33"/>',
        "gateways/gw-badger.xml": '<gateway driver="envoy" address="10.111.222.33"/>',
        "dns/ns-cormorant.xml": '<dns driver="dnsmasq" address="10.111.222.33" zone="corp.internal.lan"/>',
        "apps/paymentservice/app.xml": "<app><image>registry.dingo.example/warehousedb:1</image>"
        '<env name="KESTREL_TOKEN">correct-horse-battery-staple</env></app>',
        "apps/paymentservice/token-of-llama.conf": "token-of-llama\n",
        "known_hosts": "host-keys-of-marmot ssh-ed25519 AAAA\n",
        "README.md": "note-of-narwhal\n",
        "hooks/pre-apply": "#!/bin/sh\n# hook-of-raccoon\n",
    }, base=False)  # fmt: skip
    (directory / "hooks/pre-apply").chmod(0o755)
    copy = WorkingCopy(directory)
    copy.prepare()
    copy.keep_lineage(Lineage(1, "ab" * 8, 41, "laptop-of-penguin", AT))
    copy.remember(41, {"at": AT, "who": "ops-elephant", "message": "message-of-ocelot", "apps": {}}, {})
    copy.audit({"serial": 41, "who": "ops-elephant"})
    return directory


def forms(word: str) -> Iterator[bytes]:
    """As text in several encodings, as hex, as base64 wherever in a stream it may begin, backwards, and its parts."""
    for text in {word, word.upper(), word[::-1], codecs.encode(word, "rot13"), *word.split(".", 1)}:
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
            data = text.encode(encoding)
            yield data
            yield data.hex().encode()
            yield data.hex().upper().encode()
            for before in range(3):
                encoded = base64.b64encode(b"\0" * before + data)
                inner = encoded[-(-before * 4 // 3) + (1 if before else 0) : len(encoded) // 4 * 4 - 4]
                yield inner
                yield inner.translate(bytes.maketrans(b"+/", b"-_"))


FORMS = {word: {form for form in forms(word) if len(form) >= 5} for word in WORDS}


def found(data: bytes) -> set[str]:
    """Which of the words are in it, in any form."""
    lower = data.lower()
    return {word for word, its in FORMS.items() if any(form in data or form in lower for form in its)}


def opened_up(data: bytes) -> Iterator[bytes]:
    """It, and what comes of every compressed stream that may begin anywhere in it."""
    yield data
    for magic, unpacker in (
        (b"\x1f\x8b\x08", lambda: zlib.decompressobj(31)), (b"\x78", zlib.decompressobj),
        (b"\xfd7zXZ\0", lzma.LZMADecompressor),
    ):  # fmt: skip
        at = data.find(magic)
        while at >= 0:
            with contextlib.suppress(zlib.error, lzma.LZMAError, EOFError):
                yield unpacker().decompress(data[at:])
            at = data.find(magic, at + 1)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="module")
def keys(cluster: Cluster) -> Keys:
    return cluster.keys()


def test_nothing_is_to_be_read_in_a_copy(db: Path, keys: Keys, cluster: Cluster) -> None:
    """Neither in its header, its contents nor its name."""
    picture = pack.picture(db)
    assert picture.lineage is not None
    for archive in (picture.archive, picture.archive * 3):
        copy = make(cluster, archive, keys=keys, lineage=picture.lineage)
        for data in (*opened_up(copy.data), copy.name.encode()):
            assert found(data) == set()


def test_nothing_is_to_be_read_in_a_confirmation(db: Path, keys: Keys, cluster: Cluster) -> None:
    """Not even which target it is for."""
    copy = make(cluster, packed(db), keys=keys)
    for target in ("node-aardvark", "backup-host-quokka"):
        assert found(snapshot.confirmation(keys, target, copy.manifest, AT)) == set()


def test_the_search_would_find_it(db: Path, keys: Keys, cluster: Cluster) -> None:
    """In the archive, in one that is compressed only, and in every form by itself: so that the claims above bite."""
    archive = packed(db)
    names_only = {"10.111.222.33"}
    assert found(archive) >= set(WORDS) - names_only
    clear = make(cluster, archive, keys=keys, encrypted=False)
    assert set().union(*(found(data) for data in opened_up(clear.data))) == found(archive)
    assert set().union(*(found(data) for data in opened_up(b"junk" + gzip.compress(archive)))) == found(archive)
    for word in WORDS:
        for data in (
            word.encode(), word.encode("utf-16"), word.encode().hex().encode(),
            base64.b64encode(b"x" + word.encode() * 2),
            base64.b64encode(b"xyz" + word.encode() + b"!"), base64.urlsafe_b64encode(b"xx" + word.encode() + b"!!"),
        ):  # fmt: skip
            assert word in found(data)


def test_equal_trees_do_not_show_as_equal(db: Path, cluster: Cluster) -> None:
    """Whoever guesses what is in a tree can't check it: the mark is keyed, and each copy is encrypted anew."""
    archive = packed(db)
    first, second = make(cluster, archive), make(cluster, archive)
    assert first.manifest.tree == second.manifest.tree
    assert first.manifest.sha256 != second.manifest.sha256
    other = Cluster(id=cluster.id, private=cluster.private)
    assert make(other, archive).manifest.tree != first.manifest.tree
