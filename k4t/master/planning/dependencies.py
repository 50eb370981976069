"""The order in which apps are begun."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k4t.model.spec import Tree


def in_order(desired: Tree, names: Iterable[str]) -> list[str]:
    """By name, but each after what it depends on. A cycle (the tree's checker refuses it) is cut."""
    wanted, done = set(names), dict[str, None]()

    def needed(name: str) -> Iterator[str]:
        return iter(sorted(desired.apps[name].depends) if name in desired.apps else ())

    def visit(name: str) -> None:
        stack = [(name, needed(name))]
        seen = {name}
        while stack:
            current, rest = stack[-1]
            following = next((one for one in rest if one in wanted and one not in seen and one not in done), None)
            if following is None:
                done[current] = None
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, needed(following)))

    for name in sorted(wanted):
        if name not in done:
            visit(name)
    return list(done)
