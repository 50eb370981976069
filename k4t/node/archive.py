"""What an archive of an image says of itself, read without unpacking it.

Formats: `docker save` (https://github.com/moby/docker-image-spec, manifest.json), which since Engine 25 is also an
OCI layout; and a bare OCI layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k4t.errors import StepError
from k4t.model.value import value

MAX_MEMBERS = 100_000
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_DOCUMENTS_BYTES = 32 * 1024 * 1024
REMEDY = "make it with: docker save -o FILE IMAGE (one image to a file)"


@value
class Archive:
    """`config` is the sha256 of the image's configuration, "sha256:…"; `manifest` that of its manifest, or "".

    With Docker's classic store the first is the image's id, with containerd's the second. `layers` are the hashes
    of the unpacked layers, which both stores show.
    """

    config: str
    manifest: str = ""
    tags: tuple[str, ...] = ()
    arch: str = ""
    layers: tuple[str, ...] = ()


def read_archive(path: Path) -> Archive:
    """One pass over the file, plain or gzip. Raises StepError naming the file and what is wrong with it."""
    import tarfile

    try:
        documents = _documents(path)
    except (OSError, EOFError, tarfile.TarError) as error:
        why = "it is no tar archive" if isinstance(error, tarfile.ReadError) and "\n" in str(error) else str(error)
        raise StepError(f"can't read the image archive {path}: {why}", REMEDY) from error
    try:
        return _saved(documents) if "manifest.json" in documents else _layout(documents)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StepError(f"{path} is no archive of one image: {error}", REMEDY) from error


def _documents(path: Path) -> dict[str, bytes]:
    """Its small regular files by name: manifests and configurations among them, layers mostly not."""
    import tarfile

    found: dict[str, bytes] = {}
    left_bytes = MAX_DOCUMENTS_BYTES
    with tarfile.open(path, "r:*") as archive:
        for count, member in enumerate(archive):
            if count >= MAX_MEMBERS:
                raise tarfile.TarError(f"more than {MAX_MEMBERS} entries")
            if not member.isreg() or member.size > min(MAX_DOCUMENT_BYTES, left_bytes):
                continue
            content = archive.extractfile(member)
            if content is not None:
                found[member.name.removeprefix("./")] = content.read()
                left_bytes -= member.size
    return found


def _saved(documents: Mapping[str, bytes]) -> Archive:
    entries = json.loads(documents["manifest.json"])
    if not isinstance(entries, list) or len(entries) != 1:
        raise ValueError(f"manifest.json names {len(entries)} images")
    config = _content(documents, str(entries[0]["Config"]))
    tags = tuple(str(tag) for tag in entries[0].get("RepoTags") or ())
    manifest = ""
    if "index.json" in documents:
        listed = json.loads(documents["index.json"])["manifests"]
        manifest = str(listed[0]["digest"]) if len(listed) == 1 else ""
    return Archive(_sha256(config), manifest, tags, *_told(config))


def _layout(documents: Mapping[str, bytes]) -> Archive:
    if "index.json" not in documents:
        raise ValueError("neither manifest.json nor index.json in it")
    listed = json.loads(documents["index.json"])["manifests"]
    if len(listed) != 1:
        raise ValueError(f"index.json names {len(listed)} images")
    digest = str(listed[0]["digest"])
    manifest = json.loads(_content(documents, _blob(digest)))
    if "config" not in manifest:
        raise ValueError("it holds an image for several architectures")
    config = _content(documents, _blob(str(manifest["config"]["digest"])))
    name = (listed[0].get("annotations") or {}).get("io.containerd.image.name")
    return Archive(_sha256(config), digest, (str(name),) if name else (), *_told(config))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _content(documents: Mapping[str, bytes], name: str) -> bytes:
    """The file of that name; where the name is its hash, it has to be true."""
    data = documents[name]
    claimed = name.rpartition("/")[2].removesuffix(".json")
    if len(claimed) == 64 and _sha256(data) != f"sha256:{claimed}":
        raise ValueError(f"{name} is damaged: its hash is {_sha256(data)}")
    return data


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _told(config: bytes) -> tuple[str, tuple[str, ...]]:
    """Architecture and layers, of an image's configuration."""
    read: Any = json.loads(config)
    layers = (read.get("rootfs") or {}).get("diff_ids") or ()
    return str(read.get("architecture", "")), tuple(str(layer) for layer in layers)
