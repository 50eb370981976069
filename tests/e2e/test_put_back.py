"""What a failed update is put back to by another run, from another machine: also what leads to the containers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, fetch
from tests.e2e.test_updates import ILL_WHERE_MARKED, names, write
from tests.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.crash]
LEADING = """\
  <health interval="1s" retries="2" start-period="2s"><http port="http" path="{path}"/></health>
  <route port="http" domain="{name}.k4t.lab"/>
  <record name="{name}" ttl="1s"/>"""
OLD, NEW = LEADING.format(path="/healthz", name="old"), LEADING.format(path="/", name="new")


@pytest.fixture
def ill_on_n2(lab: Lab) -> Iterator[None]:
    """There the new version ends at once."""
    lab.host("n2").exec(["touch", "/var/lib/ill"])
    yield
    lab.host("n2").exec(["rm", "/var/lib/ill"])


def page(lab: Lab, name: str) -> int:
    return fetch(f"http://{lab.host('gw1').address}/", f"{name}.k4t.lab")[0]


def checked_paths(lab: Lab, cluster: str) -> set[str]:
    """What the gateway asks its endpoints for."""
    found = lab.host("gw1").exec(["cat", f"/var/lib/k4t/registrar/envoy/clusters/{cluster}/live.json"])
    document = json.loads(found.stdout)
    return {check["path"] for check in document.get("document", document)["checks"]}


@pytest.mark.usefixtures("ill_on_n2")
@pytest.mark.parametrize("place", ["after:publish:4", "before:rollback", "before:remove"])
def test_routes_checks_and_records_of_the_failed_spec_go_with_it(
    published: Site, lab: Lab, tmp_path: Path, place: str
) -> None:
    """The first replica of the new version was published with its own route, check and name; then the run was killed
    before the second one failed, before anything was put back, or amid that. Another machine puts it all back."""
    write(published, more=OLD)
    published.k4t("apply", "--yes")
    write(published, more=NEW, env=ILL_WHERE_MARKED)
    process = published.start("apply", "--yes", extra={"K4T_FAILPOINT": place})
    out, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, out + said
    assert page(lab, "new") == 200 or place == "before:remove"

    other = published.copy(tmp_path / "other")
    print(other.k4t("apply", "--yes", "--wait", status=None).stdout)
    assert names(lab) == names(lab, all=False) == ["prod.web.0.1", "prod.web.1.1"]
    assert {page(lab, "old") for _ in range(8)} == {200}
    assert page(lab, "new") == 404
    assert checked_paths(lab, published.id) == {"/healthz"}
    again = other.json("apply", "--yes", status=3)
    assert (again["done"], "is held" in again["not_done"][0]) == (0, True)
    write(other, more=NEW, env='  <env name="VER">3</env>')
    other.k4t("apply", "--yes")
    assert (page(lab, "old"), page(lab, "new")) == (404, 200)
