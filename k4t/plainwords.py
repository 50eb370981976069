"""Words of the command line stay words. typer has pydantic turn each into a str or a Path, at 75 ms of imports a run.

What needs no more than that is done here. All else (numbers, choices, paths that must exist) goes typer's way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer import core
from typer._coercion import RuntimeParam, TypeDescriptor

Build = Callable[[TypeDescriptor], RuntimeParam]


@dataclass(frozen=True)
class _Plain(RuntimeParam):
    """A value that only has to be made: str, Path, or a list of words."""

    make: Callable[[Any], Any]

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002 - typer's signature
        return self.make(value)


@dataclass(frozen=True)
class _Flag(RuntimeParam):
    """Given or not, so a bool already; a word for it, from an environment variable, goes typer's way."""

    theirs: Callable[[], RuntimeParam]

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if isinstance(value, bool) else self.theirs().coerce(value, param, ctx)


def install() -> None:
    """Let typer's parameters be built here first. typer keeps this seam to itself: a test tells when it has moved."""
    theirs: Build = core.build_runtime_param  # type: ignore[attr-defined]

    def build(descriptor: TypeDescriptor) -> RuntimeParam:
        info, kind = descriptor.parameter_info, descriptor.annotation
        if kind is bool:
            return _Flag(info, kind, lambda: theirs(descriptor))
        make = _maker(descriptor)
        return theirs(descriptor) if make is None else _Plain(info, kind, make)

    core.build_runtime_param = build  # type: ignore[attr-defined]


def _maker(descriptor: TypeDescriptor) -> Callable[[Any], Any] | None:
    info = descriptor.parameter_info
    if info.parser is not None:
        return None
    if descriptor.annotation is str:
        return str
    if descriptor.annotation == list[str]:
        return list
    checked = info.exists or info.readable or info.writable or info.resolve_path or info.path_type
    return Path if descriptor.annotation is Path and not checked else None
