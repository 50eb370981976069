"""The secrets of one run: fetched when something needs them, once, and kept nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from k4t.master.planning.plan import Create, Step

if TYPE_CHECKING:
    from k4t.model.spec import App, SecretRef, Tree

Login = tuple[str, str]


class Vault:
    """`fetch` gives a secret's value, or raises K4tError naming the secret, never its value."""

    def __init__(self, tree: Tree, fetch: Callable[[SecretRef], str]) -> None:
        self._tree = tree
        self._fetch = fetch
        self._values: dict[str, str] = {}
        self._guard = threading.Lock()

    def value(self, name: str) -> str:
        with self._guard:
            if name not in self._values:
                self._values[name] = self._fetch(self._tree.secrets[name])
            return self._values[name]

    def login(self, registry: str) -> Login | None:
        """User and password for a registry's host; None when the tree names none."""
        for known in self._tree.cluster.registries:
            if known.host == registry and known.secret:
                return known.user, self.value(known.secret)
        return None

    def of(self, app: App) -> dict[str, str]:
        """What the app's variables name."""
        return {env.secret: self.value(env.secret) for env in app.env if env.secret}

    def fetch_for(self, steps: Iterable[Step]) -> None:
        """Everything that these steps will want, so that what is missing stops the run before it begins."""
        for step in steps:
            if isinstance(step.work, Create):
                self.of(step.work.app)
