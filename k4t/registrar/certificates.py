"""Certificates as they stand on this host: uploaded apart from documents, named by the chain's hash, never shown.

    ROOT/var/lib/k4t/certificates/CLUSTER/SHA256.chain.pem    SHA256.key.pem (0600)

A document names them; what no document of the cluster has named for a while is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from typing import Any, Collection, Iterable, List, Mapping, Optional, Sequence

from . import files
from .document import SHA256, Certificate
from .errors import BadRequest, VendorRefused
from .routing import CERTIFICATES, certificate_paths

MAX_BYTES = 256 * 1024
KEPT_S = 7 * 86400.0


def missing(root: str, cluster: str, wanted: Iterable[str]) -> List[str]:
    """Of these hashes those that are not here, whole and unaltered."""
    return [sha256 for sha256 in wanted if _wrong(root, cluster, sha256)]


def _wrong(root: str, cluster: str, sha256: str) -> str:
    chain_path, key_path = certificate_paths(root, cluster, sha256)
    chain = _bytes(chain_path)
    if chain is None or not os.path.isfile(key_path):
        return "is not on this host"
    return "" if hashlib.sha256(chain).hexdigest() == sha256 else "was altered on this host (%s)" % chain_path


def wrong(root: str, cluster: str, certificates: Iterable[Certificate]) -> List[str]:
    """What stands in the way of serving with these, one sentence each."""
    found = []
    for certificate in certificates:
        if certificate.sha256:
            said = _wrong(root, cluster, certificate.sha256)
        else:
            paths = (certificate.chain_path, certificate.key_path)
            said = "; ".join("%s is not on this host" % path for path in paths if not os.path.isfile(path))
        if said:
            found.append("certificate %s: %s" % (certificate.name, said))
    return found


def need(root: str, cluster: str, certificates: Iterable[Certificate]) -> None:
    """Raises VendorRefused when one can't be served with."""
    found = wrong(root, cluster, certificates)
    if found:
        raise VendorRefused("; ".join(found))


def put(root: str, cluster: str, item: Any) -> None:
    """`item`: {"sha256", "chain", "key"}, PEM texts. Raises BadRequest when they don't belong together."""
    texts = [item.get(part) if isinstance(item, dict) else None for part in ("sha256", "chain", "key")]
    sha256, chain, key = (text if isinstance(text, str) and len(text) <= MAX_BYTES else "" for text in texts)
    if not SHA256.match(sha256) or hashlib.sha256(chain.encode()).hexdigest() != sha256:
        raise BadRequest("a certificate whose checksum is wrong")
    chain_path, key_path = certificate_paths(root, cluster, sha256)
    files.make_directory(os.path.dirname(chain_path))
    _check_pair(os.path.dirname(chain_path), chain, key)
    files.write(key_path, key, 0o600)
    files.write(chain_path, chain, 0o644)


def _check_pair(directory: str, chain: str, key: str) -> None:
    """Both in one file that nobody else reads. What ssl says names neither."""
    import ssl  # 15 ms, and only here

    with tempfile.NamedTemporaryFile("w", dir=directory, prefix=".pair-", suffix=".pem") as file:
        file.write(key.rstrip("\n") + "\n" + chain)
        file.flush()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.name, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            reason = str(getattr(error, "reason", "") or "no certificate and private key in PEM").lower()
            raise BadRequest("a certificate and its key don't fit: %s" % reason.replace("_", " ")) from None


def sweep(root: str, cluster: str, named: Collection[str], now: Optional[float] = None) -> None:
    """Remove what no document names (`named`: their texts) and what is older than KEPT_S."""
    directory = os.path.join(root, CERTIFICATES, cluster)
    horizon = (time.time() if now is None else now) - KEPT_S
    for name in sorted(_listed(directory)):
        path = os.path.join(directory, name)
        sha256 = name.partition(".")[0]
        if not any(sha256 in text for text in named) or not sha256:
            with contextlib.suppress(OSError):
                if os.stat(path).st_mtime < horizon:
                    os.unlink(path)


def documents(home: str, cluster: str) -> List[str]:
    """The texts of the cluster's live and staged documents of all drivers of this host."""
    found = []
    for driver in _listed(os.path.join(home, "registrar")):
        directory = os.path.join(home, "registrar", driver, "clusters", cluster)
        texts = [files.read(os.path.join(directory, name)) for name in ("live.json", "staged.json")]
        found += [text for text in texts if text]
    return found


def _listed(directory: str) -> Sequence[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(directory)
    return ()


def _bytes(path: str) -> Optional[bytes]:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)
    return None


def answer(root: str, cluster: str, home: str, request: Mapping[str, Any]) -> List[str]:
    """Take what `put` brings; of what `want` names, what is missing afterwards."""
    brought, wanted = request.get("put", []), request.get("want", [])
    if not (isinstance(brought, list) and isinstance(wanted, list)):
        raise BadRequest("put and want are lists")
    if not all(isinstance(sha256, str) and SHA256.match(sha256) for sha256 in wanted):
        raise BadRequest("want holds hashes")
    for item in brought:
        put(root, cluster, item)
    if brought:
        sweep(root, cluster, documents(home, cluster))
    return missing(root, cluster, wanted)
