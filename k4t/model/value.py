"""What the model and plans are made of: values that nobody changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots, compared and hashed by what it holds. That nobody assigns to it is mypy's to see, not
    the interpreter's: a plan makes hundreds of thousands, and frozen ones take three times as long to make.

    `dataclass` would compile five methods for each class, which was a quarter of the time in which k4t starts; here
    that is done for `__init__` alone.
    """
    made: Any = dataclass(slots=True, repr=False, eq=False)(cls)
    for name, method in _methods(made.__match_args__).items():
        if name not in cls.__dict__:
            setattr(made, name, method)
    return made  # type: ignore[no-any-return]


def _methods(names: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    held: Callable[[Any], Any] = attrgetter(*names) if names else type

    def __eq__(self: Any, other: object) -> Any:  # noqa: N807
        return held(self) == held(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(held(self))

    def __repr__(self: Any) -> str:  # noqa: N807
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return {"__eq__": __eq__, "__hash__": __hash__, "__repr__": __repr__}
