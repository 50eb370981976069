"""Who works, on which copy of the tree, with whose hands. Apart from `deploy`, so that the hosts can be called before
the planner is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from k4t.model.value import value

if TYPE_CHECKING:
    from k4t.master.fleet import Fleet
    from k4t.master.history import WorkingCopy
    from k4t.master.locking import Locks
    from k4t.master.publication.publish import Publisher
    from k4t.master.publication.redolog import Transaction
    from k4t.master.vault import Vault
    from k4t.model.events import Emit
    from k4t.model.spec import Tree
    from k4t.node.allocator import Locker


@value
class Run:
    """`lock` holds the cluster's locks while entered; `host_lock` makes each node's allocation lock. `publishing` makes
    this run's one publisher when it is first needed: a run with nothing to do doesn't."""

    directory: Path
    tree: Tree
    fleet: Fleet
    publishing: Callable[[], Publisher]
    who: str
    at: str
    emit: Emit
    lock: Callable[[], AbstractContextManager[Locks]]
    vault: Vault
    host_lock: Mapping[str, Locker] = field(default_factory=dict)

    @property
    def publisher(self) -> Publisher:
        return self.publishing()

    def unfinished(self) -> tuple[Transaction, ...]:
        """What our own redo log has open, and the next run that publishes finishes. Raises LogRefused."""
        return () if self.copy.log_is_closed() else self.publisher.unfinished()

    @property
    def copy(self) -> WorkingCopy:
        from k4t.master.history import WorkingCopy

        return WorkingCopy(self.directory)
