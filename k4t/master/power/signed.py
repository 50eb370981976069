"""What machines leave for one another on hosts that may be hacked: statements in `backup.envelope`'s form, signed by a
key that the cluster has certified for intents. Without a key, the last three fields are "": that proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from k4t.errors import BadCopy, K4tError
from k4t.master.backup import envelope
from k4t.master.backup.envelope import Kind
from k4t.model.value import value

if TYPE_CHECKING:
    from k4t.master.backup.keys import Keys

USE = envelope.INTENT.use
MAX_BYTES = envelope.LINE_MAX_BYTES
INTENT = envelope.INTENT
OFF = Kind("k4t-off", "statement", b"k4t-off-v1", USE)


class Refused(K4tError):
    """It is not what it should be; the message says why, of “it”."""


@value
class Trust:
    """What a statement is judged by. `key`: the cluster's public one; "" for a cluster that has none yet. `since`: when
    this master took over from another one; what was queued for that one may have been done (RFC 3339 UTC)."""

    cluster: str
    key: str = ""
    since: str = ""


def encode(kind: Kind, statement: Mapping[str, object], keys: Keys | None) -> bytes:
    """One line. Unsigned where `keys` is None."""
    text = envelope.canonical(statement)
    if keys is not None:
        return envelope.seal(
            kind, text, private=keys.private, certificate=keys.certificate, certified=keys.certified
        )  # fmt: skip
    content = {kind.mark: envelope.FORMAT, kind.label: text, "signature": "", "certificate": "", "certified": ""}
    return envelope.canonical(content).encode() + b"\n"


def decode(kind: Kind, data: bytes, trust: Trust, *, unsigned: bool = False) -> dict[str, Any]:
    """The statement. `unsigned`: it may come without a signature, since it lies where only its reader can write.

    Raises Refused: no such thing, of a newer format, not signed, altered, foreign, by a key not certified for it.
    """
    if data.find(b"\n") != len(data) - 1 or len(data) > MAX_BYTES:
        raise Refused(f"it is not one line of at most {MAX_BYTES} bytes")
    try:
        text = _unsigned(kind, data)
        if text is None:
            if not trust.key:
                raise Refused("it can't be checked: this tree has no recovery.xml")
            text = envelope.opened(kind, data, cluster=trust.cluster, cluster_key=trust.key)
        elif not unsigned:
            raise Refused("it is not signed")
        statement = envelope.read_canonical(text, "its statement")
    except BadCopy as error:
        raise Refused(error.message, error.remedy) from None
    if statement.get("cluster") != trust.cluster:
        raise Refused(f"it is of another cluster: {ascii(statement.get('cluster'))[:60]}, not {trust.cluster}")
    return statement


def _unsigned(kind: Kind, data: bytes) -> str | None:
    """The text of a line that claims no signature at all; None for every other."""
    content = envelope.read_canonical(data[:-1].decode("ascii", "replace"), "it")
    if any(content.get(part) != "" for part in ("signature", "certificate", "certified")):
        return None
    text = content.get(kind.label)
    if list(content) != [kind.mark, kind.label, "signature", "certificate", "certified"] or not isinstance(text, str):
        raise BadCopy("it is not what k4t writes: altered, or broken")
    if content[kind.mark] != envelope.FORMAT:
        raise BadCopy("it is of another format", "use a newer k4t")
    return text
