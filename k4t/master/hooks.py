"""The tree's hooks: programs that run on the master before and after an apply; docs/hooks.md is their contract."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from k4t import command
from k4t.errors import K4tError, StepError
from k4t.model.events import Note

if TYPE_CHECKING:
    from k4t.master.deploy import Outcome
    from k4t.master.planning.plan import Plan
    from k4t.master.run import Run

TIMEOUT_S = 300.0


@contextmanager
def around(run: Run, message: str) -> Iterator[Hooks]:
    """What is inside tells when it begins and how it ended; left with an error, it failed."""
    hooks = Hooks(run, message)
    try:
        yield hooks
    except Exception as error:
        hooks.fail(error)
        raise
    hooks.finish()


class Hooks:
    """Of one apply: `pre-apply` once, then one of `post-apply` and `on-failure`, if it was begun."""

    def __init__(self, run: Run, message: str) -> None:
        self._run = run
        self._message = message
        self._told: dict[str, str] | None = None
        self._outcome: Outcome | None = None

    def begin(self, plan: Plan) -> None:
        """Raises K4tError when pre-apply doesn't want it: nothing has been done yet."""
        apps = sorted({step.app for step in plan.steps if step.app})
        told = {"SERIAL": str(plan.serial), "APPS": " ".join(apps)}
        if status := self._call("pre-apply", told):
            raise K4tError(f"hooks/pre-apply {status}: nothing was begun", "its output says why")
        self._told = told

    def end(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def finish(self) -> None:
        outcome = self._outcome
        if self._told is None or outcome is None:
            return
        left = [f"{step}: {error}" for step, _, error in outcome.failed] + list(outcome.not_done)
        told = self._told | {
            "SERIAL": str(outcome.serial), "RESULT": outcome.result, "EXIT_STATUS": str(outcome.exit_status),
            "NOT_DONE": "\n".join(left),
        }  # fmt: skip
        self._after("on-failure" if outcome.exit_status else "post-apply", told)

    def fail(self, error: Exception) -> None:
        if self._told is None:
            return
        status = error.exit_status if isinstance(error, K4tError) else 1
        words = str(error) if isinstance(error, K4tError) else type(error).__name__
        self._after("on-failure", self._told | {"RESULT": "failed", "EXIT_STATUS": str(status), "NOT_DONE": words})

    def _after(self, name: str, told: dict[str, str]) -> None:
        """What is done is done: a hook that fails is a warning."""
        if status := self._call(name, told):
            self._run.emit(Note(f"hooks/{name} {status}", warning=True))

    def _call(self, name: str, told: dict[str, str]) -> str:
        """ "" when there is none or it succeeded, else how it ended."""
        path = self._run.directory.absolute() / "hooks" / name
        if not path.is_file():
            return ""
        try:
            status = command.followed(
                [os.fspath(path)],
                env=self._environment(name, told),
                directory=path.parent.parent,
                timeout_s=TIMEOUT_S,
                say=lambda line: self._run.emit(Note(f"{name}: {line}")),
            )
        except StepError as error:
            return f"can't be run: {error.message}"
        return f"ended with status {status}" if status else ""

    def _environment(self, name: str, told: dict[str, str]) -> dict[str, str]:
        """This program's own, without the variables that hold secrets of the tree."""
        tree = self._run.tree
        hidden = {secret.source for secret in tree.secrets.values() if secret.kind == "environment"}
        kept = {key: text for key, text in os.environ.items() if key not in hidden and not key.startswith("K4T_")}
        common = {
            "HOOK": name, "TREE": os.fspath(self._run.directory.absolute()), "CLUSTER": tree.cluster.name,
            "CLUSTER_ID": tree.cluster.id, "WHO": self._run.who, "MESSAGE": self._message,
        }  # fmt: skip
        return kept | {f"K4T_{key}": text for key, text in (common | told).items()}
