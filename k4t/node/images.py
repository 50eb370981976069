"""Images on a node: what a reference stands for, whether the node has it, how it gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

from k4t.errors import (
    EngineRefused,
    ImageNotFound,
    K4tError,
    PullFailed,
    RegistryAway,
    RegistryRefused,
    StepError,
    Unreachable,
)
from k4t.node.archive import Archive, read_archive
from k4t.node.call import full
from k4t.node.docker import Engine, Json
from k4t.node.reference import BY_ID, HUB, ImageLike, Resolved, alias, alias_tag, pinned, registry_of, split

__all__ = ["Login", "Policy", "Progress", "Resolved", "archive_image", "load", "located", "present", "pull", "resolve"]

Progress = Callable[[str, float | None], None]
"""A word, and the fraction done, 0…1, or None where the whole isn't known."""
Login = tuple[str, str]
Policy = Literal["missing", "always", "never"]

RESOLVE_TIMEOUT_S = 20.0
DOWNLOAD_SHARE = 0.7
"""How much of a layer's way is its download; the rest is its unpacking."""
SEND_BYTES = 256 * 1024

REFUSING = ("unauthorized", "no basic auth credentials", "denied", "forbidden")
AWAY = ("dial tcp", "connection refused", "i/o timeout", "no such host", "Client.Timeout", "EOF", "TLS handshake")
DISTRUSTED = ("x509:", "server gave HTTP response to HTTPS client")


def resolve(engine: Engine, reference: str, login: Login | None, *, policy: Policy = "missing") -> Resolved:
    """Ask the registry, through this node. Where it has no answer and `policy` allows it, what the node has counts.

    Raises ImageNotFound, RegistryAway, RegistryRefused, PullFailed, and what the Engine raises.
    """
    problem: K4tError | None = None
    if policy != "never":
        try:
            return _ask_registry(engine, reference, login)
        except StepError as error:
            problem = error
    found = engine.image(reference) if policy != "always" else None
    if found is not None:
        return _local(reference, found)
    raise problem or ImageNotFound(
        f'image {reference} is not on the node, and pull="never" forbids to get it', host=engine.host
    )


def archive_image(path: Path, reference: str) -> Resolved:
    """What an archive stands for. Raises StepError naming the file."""
    archive = read_archive(path)
    return Resolved(reference, f"{BY_ID}{archive.config}", (archive.arch,) if archive.arch else ())


def present(engine: Engine, image: ImageLike) -> bool:
    return located(engine, image) is not None


def located(engine: Engine, image: ImageLike) -> str | None:
    """What this Engine finds exactly this image by; None when it hasn't got it."""
    names = (pinned(image), alias(image)) if image.digest.startswith(BY_ID) else (pinned(image),)
    return next((name for name in names if engine.image(name) is not None), None)


def pull(
    engine: Engine, image: ImageLike, login: Login | None, progress: Progress, *, policy: Policy = "missing"
) -> str:
    """Bring the image to the node by digest and tag it as the reference. Returns a word on what was done.

    Raises ImageNotFound, RegistryAway, RegistryRefused, PullFailed, HostFull, and what the Engine raises.
    """
    if present(engine, image):
        return "is there"
    if policy == "never" or image.digest.startswith(BY_ID):
        raise ImageNotFound(
            f"image {image.reference} ({image.digest}) is not on the node and in no registry",
            "docker pull or docker load it there, or give the app an <image archive>",
            host=engine.host,
        )
    repository, tag = split(image.reference)
    try:
        messages = engine.pull(repository, image.digest, _auth(image.reference, login))
        _follow_pull(engine, messages, image, progress)
        engine.tag(pinned(image), repository, tag)
    except EngineRefused as error:
        raise explained(error, image.reference) from error
    return "pulled"


def load(engine: Engine, path: Path, image: ImageLike, progress: Progress) -> str:
    """Send an archive where the node lacks its image, check what arrived, tag it as the reference.

    Raises StepError (the archive, or what became of it), HostFull, and what the Engine raises.
    """
    if present(engine, image):
        return "is there"
    archive = read_archive(path)
    if image.digest != f"{BY_ID}{archive.config}":
        raise StepError(f"{path} has changed since the plan was made", "run again", host=engine.host)
    with path.open("rb") as file:
        watched = _Watched(file, path.stat().st_size, progress)
        for message in engine.load(cast("IO[bytes]", watched)):
            if "error" in message:
                raise _failed(engine, message, image.reference)
    repository, tag = split(image.reference)
    id = _arrived(engine, archive, path)
    engine.tag(id, repository, tag)
    if id != archive.config:
        engine.tag(id, repository, alias_tag(image))
    return "loaded"


def explained(error: EngineRefused, reference: str) -> K4tError:
    """What the Engine says of a registry, by type. It has words only: most of these come as status 500."""
    words, host = error.message.removeprefix("Docker says: "), error.host
    registry = registry_of(reference)
    if (disk := full(words, host)) is not None:
        return disk
    if "no basic auth credentials" in words or error.status in (401, 403) or _any(REFUSING, words):
        hint = ", or there is no such image" if registry == HUB else ""
        return RegistryRefused(
            f"{registry} refuses {reference}: {words}",
            f'give it a <registry host="{registry}" user secret> in cluster.xml{hint}',
            host=host,
        )
    if error.status == 404 or "manifest unknown" in words or "not found" in words:
        return ImageNotFound(f"{registry} has no image {reference}", "look at its name and tag", host=host)
    if _any(DISTRUSTED, words):
        return RegistryAway(
            f"{registry} is not trusted: {words}",
            "install its certificate in /etc/docker/certs.d, or add it to insecure-registries in daemon.json",
            host=host,
        )
    if _any(AWAY, words):
        return RegistryAway(
            f"{registry} does not answer: {words}", "look at the registry and at the way to it", host=host
        )
    return PullFailed(f"can't pull {reference}: {words}", host=host)


# --- resolving ---------------------------------------------------------------------------------------------


def _ask_registry(engine: Engine, reference: str, login: Login | None) -> Resolved:
    try:
        answer = engine.distribution(reference, _auth(reference, login), RESOLVE_TIMEOUT_S)
    except EngineRefused as error:
        raise explained(error, reference) from error
    except Unreachable as error:
        if not engine.transport.alive:
            raise
        raise RegistryAway(
            f"{registry_of(reference)} does not answer within {RESOLVE_TIMEOUT_S:g} s", host=engine.host
        ) from error
    platforms = answer.get("Platforms") or ()
    archs = {str(one.get("architecture")) for one in platforms if one.get("os", "linux") == "linux"}
    return Resolved(reference, str(answer["Descriptor"]["digest"]), tuple(sorted(archs - {"", "unknown"})))


def _local(reference: str, found: Json) -> Resolved:
    """By the registry's digest where the image came from it: other nodes can get that, too."""
    repository = split(reference)[0]
    digests = [str(one) for one in found.get("RepoDigests") or ()]
    known = next((one.partition("@")[2] for one in digests if one.partition("@")[0] == repository), "")
    arch = str(found.get("Architecture", ""))
    return Resolved(reference, known or f"{BY_ID}{found['Id']}", (arch,) if arch else ())


def _auth(reference: str, login: Login | None) -> dict[str, str] | None:
    if login is None:
        return None
    return {"username": login[0], "password": login[1], "serveraddress": registry_of(reference)}


def _any(needles: Iterable[str], words: str) -> bool:
    return any(needle in words for needle in needles)


# --- pulling and loading -----------------------------------------------------------------------------------


def _follow_pull(engine: Engine, messages: Iterator[Json], image: ImageLike, progress: Progress) -> None:
    """Progress as a share of layers; it never goes back."""
    layers: dict[str, float] = {}
    shown = 0.0
    for message in messages:
        if "error" in message:
            raise _failed(engine, message, image.reference)
        layer, status = str(message.get("id", "")), str(message.get("status", ""))
        if not layer or status.startswith("Pulling from"):
            continue
        layers[layer] = max(layers.get(layer, 0.0), _layer_share(status, message.get("progressDetail") or {}))
        shown = max(shown, sum(layers.values()) / len(layers))
        progress(f"pulling {image.reference}", shown)


def _layer_share(status: str, detail: Any) -> float:
    if status in ("Already exists", "Pull complete"):
        return 1.0
    total = detail.get("total") or 0
    part = min(1.0, (detail.get("current") or 0) / total) if total else 0.0
    if status == "Downloading":
        return DOWNLOAD_SHARE * part
    if status == "Extracting":
        return DOWNLOAD_SHARE + (1 - DOWNLOAD_SHARE) * part
    return DOWNLOAD_SHARE if status in ("Download complete", "Verifying Checksum") else 0.0


def _failed(engine: Engine, message: Json, reference: str) -> K4tError:
    return explained(EngineRefused(str(message["error"]), host=engine.host), reference)


def _arrived(engine: Engine, archive: Archive, path: Path) -> str:
    """The id under which the Engine has what was sent; by its tag only when the layers are the archive's."""
    for id in filter(None, (archive.config, archive.manifest)):
        if engine.image(id) is not None:
            return id
    for tag in archive.tags:
        found = engine.image(tag)
        if found is not None and tuple((found.get("RootFS") or {}).get("Layers") or ()) == archive.layers:
            return str(found["Id"])
    raise StepError(
        f"{path} was sent, but the node has no image {archive.config} afterwards",
        "is the file whole? docker load it by hand there",
        host=engine.host,
    )


class _Watched:
    """A file that tells how far it has been read."""

    def __init__(self, file: IO[bytes], size_bytes: int, progress: Progress) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._sent_bytes = 0
        self._progress = progress

    def __len__(self) -> int:
        return self._size_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(max(size, SEND_BYTES) if size >= 0 else -1)
        self._sent_bytes += len(data)
        self._progress("sending", self._sent_bytes / max(1, self._size_bytes))
        return data
