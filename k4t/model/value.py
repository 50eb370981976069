"""What the model and plans are made of: values that nobody changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots, compared and hashed by what it holds. That nobody assigns to it is mypy's to see, not
    the interpreter's: a plan makes hundreds of thousands, frozen ones take three times as long to make, and the class
    twice as long to import."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
