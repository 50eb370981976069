"""The PEM texts of certificates for hosts that lack them: chains from the tree, keys from its secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k4t.errors import StepError
from k4t.model.spec import Tree
from k4t.registrar.document import Certificate


@dataclass(frozen=True, slots=True)
class Pairs:
    """`secret` gives a secret's value by name; asked for only when a host lacks the certificate."""

    directory: Path
    tree: Tree
    secret: Callable[[str], str]

    def __call__(self, wanted: Certificate) -> tuple[str, str]:
        """(chain, key). Raises StepError when the tree hasn't this one (any more), and what `secret` raises."""
        found = self.tree.certificates.get(wanted.name)
        if found is None or found.sha256 != wanted.sha256:
            remedy = "apply all apps, so that the tree's own is published"
            raise StepError(f"certificate {wanted.name} ({wanted.sha256[:12]}) is not in the tree", remedy)
        data = (self.directory / "certificates" / found.chain).read_bytes()
        if hashlib.sha256(data).hexdigest() != wanted.sha256:
            raise StepError(f"certificates/{found.chain} was changed while k4t ran", "run it again")
        try:
            return data.decode(), self.secret(found.key_secret)
        except UnicodeDecodeError:
            raise StepError(f"certificates/{found.chain} is not UTF-8", "keep only the PEM blocks") from None
