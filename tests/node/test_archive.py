"""Archives of images are identified by what is in them, and nothing in them is believed unseen."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from k4t.errors import StepError
from k4t.node.archive import Archive, read_archive
from k4t.node.images import archive_image
from k4t.node.reference import Resolved, pinned, registry_of, split

pytestmark = pytest.mark.unit

CONFIG = json.dumps({"architecture": "arm64", "os": "linux", "rootfs": {"diff_ids": ["sha256:5"]}}).encode()
ID = hashlib.sha256(CONFIG).hexdigest()
MANIFEST = json.dumps({"config": {"digest": f"sha256:{ID}"}}).encode()
MANIFEST_ID = hashlib.sha256(MANIFEST).hexdigest()
INDEX = {"manifests": [{"digest": f"sha256:{MANIFEST_ID}", "annotations": {"io.containerd.image.name": "x:1"}}]}
LAYER = b"\0" * (5 * 1024 * 1024)


def saved(config: str) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": ["tiny:1"], "Layers": ["layer.tar"]}]).encode()


CLASSIC = {"layer.tar": LAYER, f"{ID}.json": CONFIG, "manifest.json": saved(f"{ID}.json")}
LAYOUT = {
    "blobs/sha256/" + "0" * 64: LAYER,
    f"blobs/sha256/{ID}": CONFIG,
    f"blobs/sha256/{MANIFEST_ID}": MANIFEST,
    "index.json": json.dumps(INDEX).encode(),
}
BOTH = {**LAYOUT, "manifest.json": saved(f"blobs/sha256/{ID}")}


def write(path: Path, files: Mapping[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (CLASSIC, Archive(f"sha256:{ID}", "", ("tiny:1",), "arm64", ("sha256:5",))),
        (BOTH, Archive(f"sha256:{ID}", f"sha256:{MANIFEST_ID}", ("tiny:1",), "arm64", ("sha256:5",))),
        (LAYOUT, Archive(f"sha256:{ID}", f"sha256:{MANIFEST_ID}", ("x:1",), "arm64", ("sha256:5",))),
    ],
)
def test_an_archive_is_known_by_its_configuration(
    tmp_path: Path, files: Mapping[str, bytes], wanted: Archive, mode: str
) -> None:
    """`docker save` old and new, a bare OCI layout, plain and gzip: the same digest."""
    path = write(tmp_path / "image.tar", files, mode)
    assert read_archive(path) == wanted
    assert read_archive(path).config == f"sha256:{ID}"
    assert archive_image(path, "tiny:1") == Resolved("tiny:1", f"id:sha256:{ID}", ("arm64",))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "neither manifest.json nor index.json"),
        ({"manifest.json": b"{"}, "is no archive of one image"),
        ({"manifest.json": b"[]"}, "names 0 images"),
        ({"manifest.json": b"[" * 100_000}, "is no archive of one image"),
        ({"manifest.json": saved(f"{ID}.json")}, f"{ID}.json"),
        ({**CLASSIC, f"{ID}.json": CONFIG + b" "}, "is damaged: its hash is"),
        ({**LAYOUT, "index.json": b'{"manifests":[]}'}, "names 0 images"),
    ],
)
def test_what_is_no_archive_of_an_image_is_refused(tmp_path: Path, files: Mapping[str, bytes], said: str) -> None:
    """The file is named, with what is wrong and how to make a right one."""
    path = write(tmp_path / "image.tar", files)
    with pytest.raises(StepError) as refused:
        read_archive(path)
    assert str(path) in str(refused.value)
    assert said in str(refused.value)
    assert "docker save" in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"hello" * 200, b"\x1f\x8b\x08\x00" + b"x" * 50])
def test_what_is_no_archive_at_all_is_refused(tmp_path: Path, data: bytes) -> None:
    """Empty, text, a broken gzip: one message, no traceback."""
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    with pytest.raises(StepError, match=r"image archive|no archive"):
        read_archive(path)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(StepError, match=r"gone\.tar"):
        read_archive(tmp_path / "gone.tar")


@pytest.mark.parametrize(
    ("reference", "registry", "parts"),
    [
        ("nginx", "docker.io", ("nginx", "latest")),
        ("library/nginx:1.27", "docker.io", ("library/nginx", "1.27")),
        ("reg.lab:5000/a/b:2", "reg.lab:5000", ("reg.lab:5000/a/b", "2")),
        ("localhost/a", "localhost", ("localhost/a", "latest")),
        ("ghcr.io/a/b@sha256:1", "ghcr.io", ("ghcr.io/a/b", "latest")),
    ],
)
def test_references_are_taken_apart(reference: str, registry: str, parts: tuple[str, str]) -> None:
    """A port is no tag, a digest is neither, and Docker Hub needs no name."""
    assert (registry_of(reference), split(reference)) == (registry, parts)


@pytest.mark.parametrize(
    ("digest", "found_by"),
    [("sha256:1", "reg.lab:5000/a@sha256:1"), ("id:sha256:2", "sha256:2"), ("", "reg.lab:5000/a:1")],
)
def test_an_image_is_found_by_what_it_is(digest: str, found_by: str) -> None:
    """By digest, or by its id, so that a moved tag changes nothing."""
    assert pinned(Resolved("reg.lab:5000/a:1", digest)) == found_by
