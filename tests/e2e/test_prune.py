"""Prune takes what nobody needs any more off real nodes, and nothing else."""

from __future__ import annotations

import json

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Lab

pytestmark = pytest.mark.integration

QUICK = """\
  <command><arg>/bin/sleep</arg><arg>600</arg></command>
  <health interval="1s"><exec><arg>true</arg></exec></health>
  <update max-unavailable="100%" drain="0s"/>
  <stop grace="1s"/>
"""


def test_prune_takes_old_images_and_leftovers_and_nothing_of_strangers(site: Site, lab: Lab) -> None:
    """Shown first; what runs, the newest of each repository, and what is not ours stay. A second one finds nothing."""
    host = lab.host("n1")
    repository = lab.image.rpartition(":")[0]
    (site.db / "nodes/n2.xml").unlink()
    for version in range(1, 6):
        image = lab.push(f"prune{version}", VER=f"old{version}")
        site.write("apps/web/app.xml", f"<app>\n  <image>{image}</image>\n{QUICK}</app>\n")
        site.k4t("apply", "--yes")
    host.docker(["tag", f"{repository}:prune1", "stranger/tiny:1"])
    host.docker(["tag", f"{repository}:prune1", f"{repository}-other:1"])
    host.docker(["create", "--name", "stranger", f"{repository}:prune2", "/run"])
    _stopped_copy(site, lab)
    refused = site.k4t("prune", status=64)
    assert "--yes" in refused.stderr
    assert f"{repository}:prune3" in refused.stdout
    assert "prod.web.0.1" in refused.stdout
    site.k4t("prune", "--yes", "--keep", "2")
    left = set(host.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split())
    assert {f"{repository}:prune{n}" for n in (1, 2, 5)} <= left  # another's name on it, in use, current
    assert {"stranger/tiny:1", f"{repository}-other:1"} <= left
    assert f"{repository}:prune3" not in left
    assert containers(host) == ["prod.web.0.5", "stranger"]
    assert site.k4t("prune", "--keep", "2").stdout == "Nothing to prune.\n"
    host.docker(["rmi", "stranger/tiny:1", f"{repository}-other:1"])


def _stopped_copy(site: Site, lab: Lab) -> None:
    """A container of an older generation, as an interrupted update leaves it behind."""
    host = lab.host("n1")
    found = json.loads(host.docker(["inspect", "prod.web.0.5"]).stdout)[0]["Config"]["Labels"]
    labels = {**found, "io.k4t.generation": "1", "io.k4t.ports": "{}"}
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    host.docker(["create", "--name", "prod.web.0.1", *words, f"{lab.registry}/tiny:prune5"])
