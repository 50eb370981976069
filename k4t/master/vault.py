"""The secrets of one run: fetched when something needs them, once, and kept nowhere else."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from k4t.errors import K4tError, SecretUnavailable
from k4t.master.fleet import at_once
from k4t.master.planning.certificates import keys_wanted
from k4t.master.planning.plan import Create, Fetch, Publish, Refresh, RunJob, Step
from k4t.master.planning.specs import with_digests
from k4t.node.reference import registry_of

if TYPE_CHECKING:
    from k4t.model.app import App
    from k4t.model.spec import SecretRef, Tree
    from k4t.model.state import Observed

Login = tuple[str, str]


def secrets_of(app: App) -> list[str]:
    """The names of the secrets that its containers are given, each once."""
    named = [env.secret for env in app.env] + [file.secret for file in app.files]
    return sorted({name for name in named if name})


def _with_jobs(app: App) -> list[str]:
    """Those of its jobs too."""
    return sorted({*secrets_of(app), *(env.secret for job in app.jobs for env in job.env if env.secret)})


class Vault:
    """`fetch` gives a secret's value, or raises K4tError naming the secret, never its value. `digest_key` gives the
    tree's key for digests, None when it has none."""

    def __init__(
        self, tree: Tree, fetch: Callable[[SecretRef], str], digest_key: Callable[[], bytes | None] = lambda: None
    ) -> None:
        self._tree = tree
        self._fetch = fetch
        self._digest_key = digest_key
        self._values: dict[str, str] = {}
        self._locks = {name: threading.Lock() for name in tree.secrets}

    def value(self, name: str) -> str:
        with self._locks[name]:
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
        """What the app's variables and files name."""
        return {name: self.value(name) for name in secrets_of(app)}

    def fetch_for(self, steps: Iterable[Step], observed: Observed) -> None:
        """Everything that these steps will want, so that what is missing stops the run before it begins. `observed`:
        a certificate's key is wanted where a gateway lacks it."""
        for step in steps:
            if isinstance(step.work, (Create, RunJob)):
                self.of(step.work.app)
            elif isinstance(step.work, Refresh):
                for file in step.work.app.files:
                    if file.secret and file.target in step.work.targets:
                        self.value(file.secret)
            elif isinstance(step.work, Fetch) and not step.work.archive:
                self.login(registry_of(step.work.image.reference))
            elif isinstance(step.work, Publish):
                for name in keys_wanted(self._tree, step.work, observed):
                    self.value(name)

    def digested(self, apps: Collection[str]) -> tuple[Tree, tuple[str, ...]]:
        """The tree with the digests of the secrets of these apps, and in sentences what can't be told.

        No value that is had is left out; none that isn't is waited for: unknown is not changed.
        """
        users = {name: _with_jobs(self._tree.apps[name]) for name in apps if name in self._tree.apps}
        names = sorted({secret for secrets in users.values() for secret in secrets})
        if not names:
            return self._tree, ()
        digests, unknown = self._digests(names)
        changed = {app: with_digests(self._tree.apps[app], digests) for app, secrets in users.items() if secrets}
        warnings = tuple(
            f"{app}: can't tell whether secret {name} changed: {unknown[name]}"
            for app, secrets in sorted(users.items())
            for name in secrets
            if name in unknown
        )
        return dataclasses.replace(self._tree, apps={**self._tree.apps, **changed}), warnings

    def _digests(self, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
        """By name: digests, and why there is none."""
        from k4t.tree.secret_files import digest

        try:
            key = self._digest_key()
        except K4tError as error:
            return {}, dict.fromkeys(names, error.words)
        if key is None:
            why = "the tree has no key for digests; `k4t secret recipients add` makes one"
            return {}, dict.fromkeys(names, why)

        def one(name: str) -> tuple[str, str]:
            try:
                return digest(key, name, self.value(name)), ""
            except SecretUnavailable as error:
                return "", f"{error.why}; {error.remedy}"

        answers = dict(zip(names, at_once(one, names), strict=True))
        found = {name: digest for name, (digest, _) in answers.items() if digest}
        return found, {name: why for name, (_, why) in answers.items() if why}
