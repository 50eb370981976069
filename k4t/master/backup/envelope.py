"""A signed statement on one line: what a machine says, by its own key, which the cluster's key has certified.

    {"k4t-snapshot":1,"manifest":TEXT,"signature":base64,"certificate":TEXT,"certified":base64}

TEXT is canonical JSON as a string, so that what was signed are these very bytes. The signatures (Ed25519,
`tree.signing`) are bound to their purpose. A line is read only if it is, byte for byte, what would be written for what
it says: nothing can stand in it twice, in another form, or unsigned.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from k4t.errors import BadCopy
from k4t.model.snapshot import Certificate
from k4t.model.value import value
from k4t.tree import signing
from k4t.tree.values import CLUSTER_ID

FORMAT = 1
LINE_MAX_BYTES = 4096
CERTIFICATE_PURPOSE = b"k4t-certificate-v1"
_KEYS = frozenset({"cluster", "key", "uses", "at"})


@value
class Kind:
    """`mark` begins the line, `label` names the text, `use` is what its key must be certified for."""

    mark: str
    label: str
    purpose: bytes
    use: str


SNAPSHOT = Kind("k4t-snapshot", "manifest", b"k4t-snapshot-v1", "snapshots")
CONFIRMATION = Kind("k4t-confirmation", "statement", b"k4t-confirmation-v1", "snapshots")
INTENT = Kind("k4t-intent", "intent", b"k4t-intent-v1", "intents")


def canonical(content: Mapping[str, Any]) -> str:
    """JSON, its keys in the order given, ASCII, without white space."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def read_canonical(text: str, what: str) -> dict[str, Any]:
    """A JSON object that is written as `canonical` would. Raises BadCopy."""
    try:
        found = json.loads(text)
        if isinstance(found, dict) and canonical(found) == text:
            return found
    except (ValueError, RecursionError):
        pass
    raise BadCopy(f"{what} is not what k4t writes: altered, or broken")


# --- writing -----------------------------------------------------------------------------------------------------


def seal(kind: Kind, text: str, *, private: bytes, certificate: str, certified: str) -> bytes:
    """The line, with its line break."""
    signature = signing.sign(private, kind.purpose, text.encode())
    content = {
        kind.mark: FORMAT, kind.label: text, "signature": signature, "certificate": certificate, "certified": certified,
    }  # fmt: skip
    return canonical(content).encode() + b"\n"


def certificate_text(certificate: Certificate) -> str:
    return canonical({
        "cluster": certificate.cluster, "key": certificate.key, "uses": list(certificate.uses), "at": certificate.at,
    })  # fmt: skip


def certify(cluster_private: bytes, text: str) -> str:
    """The cluster key's signature of a certificate's text."""
    return signing.sign(cluster_private, CERTIFICATE_PURPOSE, text.encode())


# --- reading -----------------------------------------------------------------------------------------------------


def opened(kind: Kind, data: bytes, *, cluster: str, cluster_key: str) -> str:
    """The signed text of the first line of `data`. Raises BadCopy, saying what is wrong with it."""
    content = _content(kind, data)
    texts = [kind.label, "signature", "certificate", "certified"]
    if list(content) != [kind.mark, *texts] or not all(isinstance(content[name], str) for name in texts):
        raise BadCopy("its header is not what k4t writes: altered, or broken")
    text, signature = content[kind.label], content["signature"]
    certificate = read_certificate(content["certificate"], content["certified"], cluster, cluster_key)
    if kind.use not in certificate.uses:
        raise BadCopy(f"the key that signed it is certified for {', '.join(certificate.uses)}, not for {kind.use}")
    if not (_exact(signature) and signing.verify(certificate.key, kind.purpose, text.encode(), signature)):
        raise BadCopy("its signature is not right: altered, or signed for something else")
    return str(text)


def read_certificate(text: str, certified: str, cluster: str, cluster_key: str) -> Certificate:
    """Raises BadCopy when this cluster's key did not sign it."""
    content = read_canonical(text, "its certificate")
    uses, rest = content.get("uses"), [content.get(name) for name in ("cluster", "key", "at")]
    if content.keys() != _KEYS or not isinstance(uses, list) or not all(isinstance(one, str) for one in [*uses, *rest]):
        raise BadCopy("its certificate is not what k4t writes: altered, or broken")
    found = Certificate(content["cluster"], content["key"], tuple(uses), content["at"])
    if not (_exact(certified) and signing.verify(cluster_key, CERTIFICATE_PURPOSE, text.encode(), certified)):
        raise BadCopy(f"it is not certified by the key of {cluster}{_claimed(found.cluster, cluster)}")
    if found.cluster != cluster:
        raise BadCopy(f"it is of another cluster: {found.cluster}, not {cluster}")
    return found


def _content(kind: Kind, data: bytes) -> dict[str, Any]:
    line = data[: LINE_MAX_BYTES + 1].partition(b"\n")[0]
    if not data:
        raise BadCopy("it is empty")
    if len(line) + 1 > LINE_MAX_BYTES:
        raise BadCopy(f"its header has no end within {LINE_MAX_BYTES} bytes")
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError:
        raise BadCopy("its header is not text") from None
    content = read_canonical(text, "its header")
    number = content.get(kind.mark)
    if type(number) is not int:
        raise BadCopy(f"it is no {kind.mark}")
    if number != FORMAT:
        raise BadCopy(f"it says it is of format {str(number)[:20]}, this k4t reads {FORMAT}", "use a newer k4t")
    return content


def _exact(signature: str) -> bool:
    """base64 has unused bits at its end: the one form in which they are 0 counts, so that no other byte will do."""
    try:
        return base64.b64encode(base64.b64decode(signature, validate=True)).decode() == signature
    except (ValueError, binascii.Error):
        return False


def _claimed(claims: str, cluster: str) -> str:
    """What a certificate says that can't be believed: shown only when it can do no harm to a terminal."""
    try:
        named = CLUSTER_ID.parse(claims) == claims != cluster
    except ValueError:
        named = False
    return f" (it says it is of {claims})" if named else ""
