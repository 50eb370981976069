"""The tiny image, built without Docker: busybox-static and a web server in one layer, pushed by HTTP or saved.

Formats: Docker image manifest v2, schema 2; registry HTTP API v2; the archive is what `docker save` writes.
Everything in it is fixed, so a variant has the same digest in every lab.
Debian's static busybox has no `wget -T` (it crashes) and no address option for `nc -l`; use `timeout 3 wget …`.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError
from tests.lab.processes import run

BUSYBOX = Path("/bin/busybox")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

# Writes only to /dev/shm: runs with a read-only root, as any user. `rm /www/healthz` makes a running one unhealthy.
RUN = """\
#!/bin/sh
# PORT (8080), BIND, VER; FAIL=1: exit at once; DELAY=n: listen after n seconds; UNHEALTHY=1: 503 on /healthz
if [ -n "$FAIL" ]; then echo "tiny: FAIL=$FAIL, so this ends at once" >&2; exit 1; fi
trap 'kill $child 2>/dev/null; exit 0' TERM INT
if [ -n "$DELAY" ]; then sleep "$DELAY" & child=$!; wait $child; fi
port=${PORT:-8080}
echo "node=${NODE:-$(hostname)} port=$port version=${VER:-1}" >/dev/shm/index.html
echo "tiny: version ${VER:-1} listens on ${BIND:-}:$port"
if [ -n "$UNHEALTHY" ]; then
  nc -ll -p "$port" -e /unhealthy & child=$!  # on all addresses: this nc knows no other
else
  httpd -f -p "${BIND:+$BIND:}$port" -h /www & child=$!
fi
wait $child
"""
# One connection: the page as usual, but 503 on /healthz, which busybox's httpd can't be told to answer.
UNHEALTHY = """\
#!/bin/sh
read -r verb path rest
while read -r line && [ "$line" != "$(printf '\\r')" ]; do :; done
case $path in
  /healthz) status='503 Service Unavailable' body=unhealthy ;;
  *) status='200 OK' body=$(cat /dev/shm/index.html) ;;
esac
printf 'HTTP/1.1 %s\\r\\nContent-Type: text/html\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n%s\\n' \\
  "$status" "$((${#body} + 1))" "$body"
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """One image: a tag and what it changes of the plain one."""

    tag: str
    env: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("/run",)
    healthcheck: tuple[str, ...] | None = None

    def config(self) -> bytes:
        """The image's configuration, whose sha256 is the image's id."""
        env = {"PATH": "/bin", "VER": "1", **self.env}
        runtime: dict[str, Any] = {
            "Env": [f"{k}={v}" for k, v in env.items()],
            "Cmd": list(self.command),
            "WorkingDir": "/",
        }
        if self.healthcheck:
            second = 1_000_000_000
            runtime["Healthcheck"] = {
                "Test": list(self.healthcheck),
                "Interval": second,
                "Timeout": second,
                "Retries": 2,
            }
        config = {
            "architecture": ARCHITECTURES.get(os.uname().machine, "amd64"),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": runtime,
            "rootfs": {"type": "layers", "diff_ids": [digest(layer())]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "tests.lab"}],
        }
        return json.dumps(config, sort_keys=True).encode()

    def manifest(self) -> bytes:
        packed = packed_layer()
        described = [{"mediaType": LAYER, "size": len(packed), "digest": digest(packed)}]
        config = {"mediaType": CONFIG, "size": len(self.config()), "digest": digest(self.config())}
        return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}).encode()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@cache
def layer() -> bytes:
    """The root file system as an uncompressed tar."""
    busybox = BUSYBOX.read_bytes()
    if b"ld-linux" in busybox[:4096]:
        raise LabError(f"{BUSYBOX} is not static; apt-get install busybox-static")
    applets = run([str(BUSYBOX), "--list"]).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("www", 0o755),
            ("root", 0o700),
            ("tmp", 0o1777),
        ):
            _add(tar, name, tarfile.DIRTYPE, mode)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, busybox)
        for applet in sorted(set(applets) - {"busybox"}):
            _add(tar, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        _add(
            tar,
            "etc/passwd",
            tarfile.REGTYPE,
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n",
        )
        _add(tar, "etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nnogroup:x:65534:\n")
        _add(tar, "run", tarfile.REGTYPE, 0o755, RUN.encode())
        _add(tar, "www/healthz", tarfile.REGTYPE, 0o644, b"ok\n")
        _add(tar, "www/index.html", tarfile.SYMTYPE, 0o777, link="../dev/shm/index.html")
        _add(tar, "unhealthy", tarfile.REGTYPE, 0o755, UNHEALTHY.encode())
    return out.getvalue()


@cache
def packed_layer() -> bytes:
    return gzip.compress(layer(), compresslevel=1, mtime=0)


def write_archive(variant: Variant, reference: str, path: Path) -> Path:
    """A `docker save` archive of a variant under `reference`."""
    config, identity = variant.config(), digest(variant.config()).removeprefix("sha256:")
    manifest = [{"Config": f"{identity}.json", "RepoTags": [reference], "Layers": ["layer/layer.tar"]}]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, f"{identity}.json", tarfile.REGTYPE, 0o644, config)
        _add(tar, "layer", tarfile.DIRTYPE, 0o755)
        _add(tar, "layer/layer.tar", tarfile.REGTYPE, 0o644, layer())
        _add(tar, "manifest.json", tarfile.REGTYPE, 0o644, json.dumps(manifest).encode())
    return path


def push(variant: Variant, registry: str) -> str:
    """Upload a variant to REGISTRY/tiny:TAG over plain HTTP; returns its manifest's digest."""
    client = _Client(registry, http.client.HTTPConnection(registry, timeout=10))
    try:
        for blob in (packed_layer(), variant.config()):
            client.push_blob(blob)
        manifest = variant.manifest()
        client.request("PUT", f"/v2/tiny/manifests/{variant.tag}", manifest, kind=MANIFEST, good={201})
        return digest(manifest)
    finally:
        client.connection.close()


@dataclass(frozen=True, slots=True)
class _Client:
    registry: str
    connection: http.client.HTTPConnection

    def push_blob(self, blob: bytes) -> None:
        name = digest(blob)
        if self.request("HEAD", f"/v2/tiny/blobs/{name}", good={200, 404}).status == 200:
            return
        started = self.request("POST", "/v2/tiny/blobs/uploads/", good={202})
        place = (started.getheader("Location") or "").removeprefix(f"http://{self.registry}")
        join = "&" if "?" in place else "?"
        self.request("PUT", f"{place}{join}digest={name}", blob, good={201})

    def request(
        self, verb: str, path: str, body: bytes = b"", *, kind: str = "application/octet-stream", good: set[int]
    ) -> http.client.HTTPResponse:
        headers = {"Content-Length": str(len(body)), "Content-Type": kind}
        self.connection.request(verb, path, body=body, headers=headers)
        response = self.connection.getresponse()
        said = response.read()
        if response.status not in good:
            raise LabError(f"registry {self.registry}: {verb} {path}: {response.status} {said[:300]!r}")
        return response


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, content: bytes = b"", *, link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    tar.addfile(entry, io.BytesIO(content) if content else None)
