"""The files that Envoy watches: one directory a kind, EDS one file a cluster. Written outside and renamed in.

DIRECTORY/{lds,cds,rds,rds_https}/KIND.json   DIRECTORY/eds/CLUSTER.json   DIRECTORY/staging/
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Dict, List, Sequence, Tuple

from . import envoy_admin, files

KINDS = ("cds", "rds", "rds_https", "lds")
MANY = ("eds", "sds")
Resources = Any
"""The `resources` of one file, None for one that can't be read as such."""


class Files:
    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.staging = os.path.join(directory, "staging")

    def path(self, kind: str) -> str:
        return os.path.join(self.directory, kind, kind + ".json")

    def eds(self, cluster: str) -> str:
        return os.path.join(self.directory, "eds", cluster + ".json")

    def sds(self, certificate: str) -> str:
        return os.path.join(self.directory, "sds", certificate.replace("/", ".") + ".json")

    def folder(self, kind: str) -> str:
        return os.path.join(self.directory, kind)

    def write(self, path: str, resources: Sequence[Any]) -> str:
        """A version of its own, which Envoy then shows."""
        files.make_directory(self.staging)
        version = "%s-%s" % (digest(resources)[:12], os.urandom(4).hex())
        files.write(path, envelope(resources, version), staging=self.staging)
        return version

    def on_disk(self) -> Dict[str, Resources]:
        """Path to resources of every file of ours."""
        paths = [self.path(kind) for kind in KINDS]
        for folder in map(self.folder, MANY):
            if os.path.isdir(folder):
                paths += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        return {path: resources(path) for path in paths}

    def restore(self, old: Dict[str, Resources], new: Dict[str, Resources]) -> None:
        """Everything as it was before; what there was none of, away."""
        for path, content in old.items():
            if content is not None and resources(path) != content:
                self.write(path, content)
        for path in new:
            if old.get(path) is None and os.path.basename(os.path.dirname(path)) in MANY:
                files.remove(path)


def envelope(content: Sequence[Any], version: str = "0") -> str:
    return json.dumps({"version_info": version, "resources": content}, indent=1) + "\n"


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def resources(path: str) -> Resources:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)["resources"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def pairs(assignments: Resources) -> List[Tuple[str, int]]:
    """(ip, port) of a file that holds one load assignment; none of one that doesn't."""
    try:
        return envoy_admin.pairs(assignments[0]) if assignments else []
    except (KeyError, TypeError, ValueError):
        return []


def with_leaving(old: Resources, new: List[Any]) -> List[Any]:
    """The new clusters, and those of the old ones that are on their way out."""
    names = {cluster["name"] for cluster in new}
    leaving = [cluster for cluster in old or [] if isinstance(cluster, dict) and cluster.get("name") not in names]
    return sorted(new + leaving, key=lambda cluster: str(cluster.get("name"))) if leaving else new
