"""Copies on real hosts, looked at and put back: `backup list|verify|diff|show`, `restore`."""

from __future__ import annotations

import base64
import json
import shutil
import time
from pathlib import Path

import pytest

from k4t.tree import signing
from tests.e2e.site import Site, fetch
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
BACKUPS = '  <backup node="n1" every="1m" keep="50"/>\n  <backup node="n2" every="1h" keep="50"/>\n</cluster>'
ROUTED = """\
  <health interval="1s"><http port="http" path="/healthz"/></health>
  <route port="http" domain="web.k4t.lab"/>
  <env name="VER">{}</env>"""


@pytest.fixture
def backed(published: Site) -> Site:
    """Copies to both nodes. `apply` makes them."""
    text = (published.db / "cluster.xml").read_text()
    published.write("cluster.xml", text.replace("</cluster>", BACKUPS))
    return published


def version(site: Site, number: int) -> Path:
    return site.app("web", more=ROUTED.format(number))


def served(lab: Lab) -> str:
    return fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[1].rpartition("version=")[2].strip()


def steps(site: Site, *words: str) -> list[tuple[str, str]]:
    return [(step["action"], step["app"]) for step in site.json("plan", *words)["steps"]]


def kept(site: Site) -> list[Path]:
    return sorted(site.directory.glob("db.before-*"))


def test_looked_at_and_put_back(backed: Site, lab: Lab) -> None:
    """Listed on one time axis, verified there and here, compared, looked into. One app back: `plan` shows just that.
    The whole tree back on purpose: the next apply is no surprise, and the one after it has nothing to do."""
    web = version(backed, 1)
    backed.k4t("apply", "--yes")
    first = web.read_bytes()
    version(backed, 2)
    backed.app("api", port=8081)
    backed.k4t("apply", "--yes")
    looked_at(backed)

    said = backed.k4t("restore", "--from", "n2", "--at", "1", "--app", "web", "--yes")
    assert "k4t plan web shows" in said.stdout
    assert web.read_bytes() == first
    assert {app for _, app in steps(backed)} == {"web"}
    assert ("create", "web") in steps(backed, "web")

    backed.k4t("restore", "--yes")
    assert steps(backed) == []
    assert [(path / "apps/web/app.xml").read_bytes() for path in kept(backed)] == [first]

    said = backed.k4t("restore", "--at", "1", "--yes", status=4)
    assert "older than what is live: serial 2" in said.stderr
    assert "--rollback" in said.stderr
    done = backed.json("restore", "--at", "1", "--rollback", "--yes")
    assert (done["result"], done["copy"], done["generation"]) == ("restored", "1.1", None)
    assert done["removed"] == ["apps/api/app.xml"]
    unsafe = backed.json("plan", status=4)["unsafe"]
    assert [(one["kind"], one["name"]) for one in unsafe] == [("remove-app", "api")]
    backed.k4t("apply", "--yes", "--allow", "remove-app:api")
    assert served(lab) == "1"
    assert steps(backed) == []
    assert backed.json("backup", "list")["copies"][0]["serial"] == 3


def looked_at(site: Site) -> None:
    listed = site.json("backup", "list")
    assert [(one["copy"], one["targets"], one["problem"]) for one in listed["copies"]] == [
        ("2.2", ["n1", "n2"], ""),
        ("1.1", ["n1", "n2"], ""),
    ]
    assert [(one["target"], one["reachable"], one["count"]) for one in listed["targets"]] == [
        ("n1", True, 2), ("n2", True, 2),
    ]  # fmt: skip
    assert "4 of 4 copies good: signature and sha256, 4 brought here and opened" in (
        site.k4t("backup", "verify", "--read-data").stdout
    )
    assert 'apps/web/app.xml: env[VER] "1" → "2"' in site.k4t("backup", "diff", "1", "n2").stdout.splitlines()
    assert '<env name="VER">1</env>' in site.k4t("backup", "show", "1.1", "apps/web").stdout


def test_a_copy_from_the_middle_of_a_publication(backed: Site, lab: Lab) -> None:
    """The decision is logged, nobody has committed, and a copy is made; the apply is killed, the tree is lost. Put
    back, the plan converges and nothing is lost. While the apply ran, nothing could be put back."""
    version(backed, 1)
    backed.k4t("apply", "--yes")
    version(backed, 2)
    apply = backed.start("apply", "--yes", extra={"K4T_FAILPOINT": "after:decide=stall"})
    try:
        wait_for_decision(backed)
        backed.k4t("backup")
        busy = backed.k4t("restore", "--at", "1.1", "--rollback", "--yes", status=75)
        assert "for apply" in busy.stderr
    finally:
        apply.kill()
        apply.communicate()
    log = (backed.db / ".k4t" / "redo.log").read_bytes()
    (backed.db / "apps" / "web" / "app.xml").write_text("<app")
    (backed.db / ".k4t" / "redo.log").write_bytes(b"lost")
    assert "the tree is damaged" in backed.k4t("restore", "--yes").stderr
    assert (backed.db / ".k4t" / "redo.log").read_bytes() == log
    done = backed.k4t("apply", "--yes", "--wait")
    assert "of another working copy" in done.stderr
    assert served(lab) == "2"
    assert steps(backed) == []
    assert backed.json("txn", "list")["transactions"] is not None


def wait_for_decision(site: Site) -> None:
    """The commit record of the second apply is in the log."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        data = (site.db / ".k4t" / "redo.log").read_bytes()
        if data.count(b'"kind":"commit"') > data.count(b'"kind":"end"'):
            return
        time.sleep(0.1)
    raise AssertionError("no decision was logged")


def test_a_clone_on_another_machine_takes_over(backed: Site, tmp_path: Path) -> None:
    """With a copy and the kit it is the master: every host is told, it may make copies, `plan` is empty. The one before
    is refused at its next apply, and so are its copies."""
    version(backed, 1)
    backed.k4t("apply", "--yes")
    kit = tmp_path / "kit.txt"
    backed.k4t("kit", "--write", str(kit))
    other = backed.copy(tmp_path / "other")
    shutil.rmtree(other.home / ".config")
    assert (
        "the cluster's master"
        in other.k4t("restore", status=1).stderr + other.k4t("restore", "--kit", str(kit), status=64).stderr
    )
    done = other.json("restore", "--from", "n1", "--kit", str(kit), "--yes")
    assert (done["copy"], done["generation"], done["notes"]) == ("1.1", 2, [])
    assert steps(other) == []
    other.k4t("backup")
    version(backed, 2)
    assert "this working copy was replaced" in backed.k4t("apply", "--yes", status=4).stdout
    assert "replaced" in backed.k4t("backup", status=4).stdout
    assert backed.json("backup", "list")["copies"][0]["generation"] == 2


# --- a target that lies --------------------------------------------------------------------------------------------


class Liar:
    """Root on a node does what it likes with the copies there."""

    def __init__(self, site: Site, host: Host) -> None:
        self.host, self.directory = host, f"/var/lib/k4t/{site.id}/copies"
        self.before = {name: self.read(name) for name in self.names()}

    def names(self) -> list[str]:
        listed = self.host.exec(["ls", self.directory]).stdout.split()
        return sorted(name for name in listed if name.endswith(".snapshot"))

    def read(self, name: str) -> bytes:
        return base64.b64decode(self.host.exec(["base64", f"{self.directory}/{name}"]).stdout)

    def show(self, shown: dict[str, bytes]) -> None:
        """These, and nothing else."""
        self.host.exec(["sh", "-c", f"rm -f {self.directory}/*.snapshot"])
        for name, data in shown.items():
            text = base64.b64encode(data).decode()
            self.host.exec(["sh", "-c", f"echo {text} | base64 -d > {self.directory}/{name}"])


def resigned(data: bytes) -> bytes:
    """By a key of its own, which it certifies itself; with a later serial."""
    private, cluster = signing.new_private(), signing.new_private()
    head, _, payload = data.partition(b"\n")
    content = json.loads(head)
    content["manifest"] = content["manifest"].replace('"serial":2', '"serial":9')
    certificate = json.loads(content["certificate"])
    certificate["key"] = signing.public_of(private)
    content["certificate"] = json.dumps(certificate, separators=(",", ":"))
    content["certified"] = signing.sign(cluster, b"k4t-certificate-v1", content["certificate"].encode())
    content["signature"] = signing.sign(private, b"k4t-snapshot-v1", content["manifest"].encode())
    return json.dumps(content, separators=(",", ":")).encode() + b"\n" + payload


def test_a_target_that_lies_fools_nobody(backed: Site, lab: Lab) -> None:
    """Altered bytes, its own signature, an older copy under a newer name, files under each other's names: asked first,
    it is refused with the reason, and the good copy on the other node is named. `verify` names what is wrong there."""
    for number in (1, 2):
        version(backed, number)
        backed.k4t("apply", "--yes")
    liar = Liar(backed, lab.host("n1"))
    older, newer = liar.names()
    true = liar.before[newer]
    late = newer.replace("0001-000002", "0009-000009")
    before = (backed.db / "cluster.xml").read_bytes()
    lies = {
        "not those that were signed (sha256)": ({newer: true[:-9] + b"A" + true[-8:]}, 1, "bad"),
        "not certified by the key of": ({late: resigned(true)}, 1, "bad"),
        "older than what is live: serial 2": ({late: liar.before[older]}, 4, "rolled back"),
        "there is no copy on n1": ({}, 64, "rolled back"),
    }
    for reason, (shown, status, verdict) in lies.items():
        liar.show(shown)
        refused = backed.k4t("restore", "--from", "n1", "--yes", status=status)
        assert reason in refused.stderr
        if status != 64:
            assert "the next good one is copy 2.2" in refused.stderr
            assert "k4t restore --from n2 --at 2.2" in refused.stderr
        found = backed.k4t("backup", "verify", status=1)
        assert verdict in found.stdout, (reason, found.stdout)
        assert "n1" in found.stdout
    assert (backed.db / "cluster.xml").read_bytes() == before
    assert kept(backed) == []
    liar.show({newer: liar.before[older], older: true})
    backed.write("apps/web/app.xml", "<app/>")
    backed.k4t("restore", "--from", "n1", "--yes")
    assert steps(backed) == []

    lab.host("n2").power_off()
    away = backed.k4t("backup", "verify", status=3)
    assert "away  n2" in away.stdout
    assert "2 of 2 copies good" in away.stdout
    assert "can't be asked" in backed.k4t("backup", "list").stdout
    assert backed.k4t("restore", "--from", "n2", "--yes", status=69).stderr.startswith("k4t: n2")
    lab.host("n2").power_on()
