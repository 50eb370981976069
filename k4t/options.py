"""Options that every command takes, wherever they stand on the line: `k4t --db DIR plan` is `k4t plan --db DIR`."""

from __future__ import annotations

from collections.abc import Sequence

WITH_VALUE = frozenset({"--db", "-o", "--output", "--allow", "-m", "--message"})
FLAGS = frozenset({"--yes", "-y", "--no-color", "--wait"})


def hoisted(argv: Sequence[str]) -> list[str]:
    """The same words with the global options first. What stands behind `--` is left alone."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif word in FLAGS or (equals and name in WITH_VALUE):
            front.append(word)
        elif word in WITH_VALUE:
            front += [word, *_next(words)]
        elif word[:2] in ("-o", "-m") and len(word) > 2:
            front += [word[:2], word[2:]]
        else:
            rest.append(word)
    return front + rest


def _next(words: object) -> list[str]:
    found = next(words, None)  # type: ignore[call-overload]
    return [] if found is None else [found]
