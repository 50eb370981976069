"""Image references taken apart: REGISTRY/REPOSITORY:TAG@DIGEST (https://github.com/distribution/reference). Pure."""

from __future__ import annotations

from typing import Protocol

from k4t.model.value import value

HUB = "docker.io"
BY_ID = "id:"


class ImageLike(Protocol):
    """A reference and what it stands for: "sha256:…" in a registry, or "id:sha256:…" on nodes only."""

    @property
    def reference(self) -> str: ...
    @property
    def digest(self) -> str: ...


@value
class Resolved:
    """A reference and what it stands for; `archs` in Docker's words, empty where that isn't known."""

    reference: str
    digest: str
    archs: tuple[str, ...] = ()


def registry_of(reference: str) -> str:
    """The host (and port) that serves it."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else HUB


def split(reference: str) -> tuple[str, str]:
    """Repository and tag, without the digest. No tag means `latest`, as Docker has it."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{head}{slash}{repository}", tag or "latest"


def pinned(image: ImageLike) -> str:
    """What the Engine finds exactly this image by: REPOSITORY@sha256:…, or its id."""
    if image.digest.startswith(BY_ID):
        return image.digest.removeprefix(BY_ID)
    return f"{split(image.reference)[0]}@{image.digest}" if image.digest else image.reference


def alias(image: ImageLike) -> str:
    """A tag that stands for an image's configuration, where the Engine knows images by their manifests instead.

    Such an Engine (containerd's store, the default since Docker 29) can't be asked for a configuration's digest.
    """
    return f"{split(image.reference)[0]}:{alias_tag(image)}"


def alias_tag(image: ImageLike) -> str:
    return f"k4t-{image.digest.rpartition(':')[2]}"
