"""What a valid tree is read as: values, defaults, variables, hashes, one consistent picture, at what speed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from k4t.errors import InvalidTree, Usage
from k4t.model.app import App, Env, Health, HttpProbe, Image, Log, Port, Scale, TcpProbe
from k4t.model.hosts import AddressPool, Capacity, Node, Ssh
from k4t.model.publish import Record, Route
from k4t.model.shared import Share, Where
from k4t.model.spec import Cluster, Safety, SecretRef, Tree
from k4t.tree import files
from k4t.tree.read import read_tree
from k4t.tree.table import Element
from tests.tree.support import write_tree

pytestmark = pytest.mark.unit
FULL = Path(__file__).parent / "full"


def test_a_tree_that_uses_everything_is_read_as_written() -> None:
    """Spot checks of every kind of value; show and read prove the rest (test_show)."""
    tree = read_tree(FULL)
    assert tree.cluster.safety == Safety(25.0, 4)
    assert tree.cluster.ssh == Ssh("", 2222, "root", "~/.ssh/id_ed25519", "ops@bastion:22", False, 10.0)
    assert tree.cluster.backups[1].every_s == 3600.0
    node = tree.nodes["node1"]
    assert (node.address, node.address6, node.port_range) == ("10.88.0.11", "fd00::11", (21000, 21999))
    assert node.labels == {"zone": "a", "dc": "fra"}
    assert node.capacity == Capacity(4.0, 8 * 2**30, 512 * 2**20)
    assert node.pool == AddressPool("10.88.0.100", "10.88.0.119", "eth0", "10.88.0.0/24", "10.88.0.1")
    assert tree.nodes["node2"].ssh.host == "10.88.0.12"
    assert tree.gateways["gw2"].scripts[0].args[:2] == ("pwsh", "-f")
    assert tree.gateways["gw2"].scripts[0].args[-1] == "${ip}"
    app = tree.apps["web"]
    assert app.env == (Env("DOMAIN", "www.example.com"), Env("RAW", "${x}"), Env("PW", "", "pw"))
    assert app.log == Log("json-file", 20 * 2**20, 5)
    assert app.update.max_surge == Share(percent=25.0)
    assert app.health == Health(HttpProbe("http", "/ok", (200, 204), (("Host", "x"),)), 1.5, 1.0, 2, 60.0)
    assert app.files[0].sha256 == hashlib.sha256(b"host www.example.com ${kept}\n").hexdigest()
    assert app.docker_extra == {"HostConfig": {"Privileged": True}}
    assert tree.apps["db"].update.strategy == "recreate"
    assert tree.apps["agent"].per_node
    assert tree.secrets["pw"] == SecretRef("pw", "command", "pass show pw", Where("secrets/pw.xml", 1))
    assert str(app.ports[1].where) == "apps/web/app.xml:9"


def test_what_is_not_written_is_the_models_default(tmp_path: Path) -> None:
    """The table's defaults and those of the model are the same ones."""
    empty = (
        "<app><image>web:1</image><container/><network/><resources/><log/><stop/><placement/><update/>"
        "<port host='auto'/><health><http/></health><route/><record type='srv'/>"
        "<scale min='1' max='2' command='x'/></app>"
    )
    write_tree(tmp_path, {"apps/web/app.xml": empty, "apps/bare/app.xml": "<app><image>web:1</image></app>"})
    tree = read_tree(tmp_path)
    web, bare = tree.apps["web"], tree.apps["bare"]
    assert bare == App("bare", Image("web:1"), where=bare.where)
    for name in ("container", "network", "resources", "log", "stop", "placement", "update"):
        assert getattr(web, name) == getattr(bare, name)
    assert web.scale == Scale(1, 2, command="x", where=Where("apps/web/app.xml", 1))
    assert web.health == Health(HttpProbe())
    assert web.ports == (Port(host="auto", where=web.ports[0].where),)
    assert web.routes == (Route(where=web.routes[0].where),)
    assert web.records == (Record("web", "srv", where=web.records[0].where),)
    assert tree.cluster == Cluster("test", "k7f3q2m9", variables={"domain": "example.com"}, where=tree.cluster.where)
    assert tree.nodes["n1"].port_range == Node("", "").port_range


def test_defaults_are_merged_element_by_element(tmp_path: Path) -> None:
    """What the app says wins; repeated elements go by their key; those without one all or none."""
    write_tree(
        tmp_path,
        {
            "cluster.xml": """<cluster name="t" id="k7f3q2m9"><variable name="v">x</variable><defaults>
              <app stopped="true"><image pull="always"/><log max-size="1MiB" max-files="9"/>
                <env name="A">default</env><env name="B">${v} $${v}</env><command><arg>a</arg><arg>b</arg></command>
                <health interval="9s"><tcp/></health><update drain="3s"/><stop grace="2s"/></app>
              <node availability="cordoned"><label name="zone">z</label><label name="dc">d</label></node>
            </defaults></cluster>""",
            "apps/web/app.xml": """<app stopped="false"><image>web:1</image><log max-files="2"/><env name="A">own</env>
                <command><arg>c</arg></command><port host="auto"/><health retries="7"><http/></health></app>""",
            "apps/db/app.xml": "<app><image pull='never'>db:1</image><port host='auto'/></app>",
        },
    )
    tree = read_tree(tmp_path)
    web, db = tree.apps["web"], tree.apps["db"]
    assert web.image == Image("web:1", pull="always")
    assert web.log == Log(max_size_bytes=2**20, max_files=2)
    assert web.env == (Env("A", "own"), Env("B", "x ${v}"))
    assert web.command == ("c",)
    assert web.health == Health(HttpProbe(), 9.0, retries=7)
    assert (web.stopped, db.stopped, db.command) == (False, True, ("a", "b"))
    assert db.image.pull == "never"
    assert db.health == Health(TcpProbe(), 9.0)
    assert tree.nodes["n1"].labels == {"zone": "a", "dc": "d"}
    assert tree.nodes["n1"].availability == "cordoned"
    assert (tree.gone.update.drain_s, tree.gone.stop.grace_s) == (3.0, 2.0)  # of apps whose file is gone


def test_the_hash_is_of_what_counts(tmp_path: Path) -> None:
    """Notes, known_hosts and .k4t don't; every other byte and name does; an app's own only by its directory."""
    write_tree(tmp_path, {"apps/web/app.xml": "<app><image>web:1</image></app>", "apps/web/data": "1"})
    before = read_tree(tmp_path)
    write_tree(
        tmp_path, dict.fromkeys(("known_hosts", "README", "nodes/README.md", ".k4t/x", ".gitignore"), "x"), base=False
    )
    assert read_tree(tmp_path).sha256 == before.sha256
    (tmp_path / "apps/web/data").write_text("2")
    after = read_tree(tmp_path)
    assert after.sha256 != before.sha256
    assert after.app_sha256["web"] != before.app_sha256["web"]
    (tmp_path / "nodes/n1.xml").write_text('<node address="10.0.0.1"><label name="zone">c</label></node>')
    assert read_tree(tmp_path).app_sha256 == after.app_sha256
    lines = "".join(
        f"{name}\0{hashlib.sha256((tmp_path / 'apps/web' / name).read_bytes()).hexdigest()}\n"
        for name in ("app.xml", "data")
    )
    assert after.app_sha256["web"] == hashlib.sha256(lines.encode()).hexdigest()


def test_a_tree_under_edit_is_read_as_one_picture(tmp_path: Path) -> None:
    """A writer changes two files together, again and again; no reading ever sees one without the other."""
    app = "<app><image>web:{}</image></app>"
    names = ("apps/a/app.xml", "apps/z/app.xml")
    write_tree(tmp_path, {name: app.format(0) for name in names})
    stop = threading.Event()

    def edit() -> None:
        count = 0
        while not stop.wait(0.03):
            count += 1
            for name in names:
                (tmp_path / "new").write_text(app.format(count))
                (tmp_path / "new").rename(tmp_path / name)

    writer = threading.Thread(target=edit)
    writer.start()
    seen = set()
    try:
        for _ in range(40):
            try:
                tree = read_tree(tmp_path)
            except (InvalidTree, Usage):
                continue  # the writer's own stray file, or a tree that changed each time
            assert abs(_version(tree, "a") - _version(tree, "z")) <= 1
            seen.add(_version(tree, "a"))
    finally:
        stop.set()
        writer.join()
    assert seen


def _version(tree: Tree, app: str) -> int:
    return int(tree.apps[app].image.reference.split(":")[1])


def test_a_change_while_reading_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the bytes are read a file changes: the answer holds the new one, and a restless tree is refused."""
    write_tree(tmp_path, {"apps/web/app.xml": "<app><image>web:0</image></app>"})
    path, count, limit = tmp_path / "apps/web/app.xml", 0, 2
    original = files.Snapshot.app_sha256

    def then_edit(self: files.Snapshot) -> dict[str, str]:
        nonlocal count
        if count < limit:
            count += 1
            path.write_text(f"<app><image>web:{count}</image></app>")
        return original(self)

    monkeypatch.setattr(files.Snapshot, "app_sha256", then_edit)
    assert read_tree(tmp_path).apps["web"].image.reference == "web:2"
    limit = 1000
    with pytest.raises(Usage, match="changes while it is read"):
        read_tree(tmp_path)


def many(directory: Path, count: int) -> Path:
    text = """<app replicas="2">
  <image>registry.example.com/web:1.4</image>
  <port host="auto"/>
  <env name="DOMAIN">x.${{domain}}</env>
  <resources memory="64MiB" cpus="0.5"/>
  <health interval="2s"><http path="/ok"/></health>
  <route domain="a{}.${{domain}}"/>
</app>
"""
    return write_tree(directory, {f"apps/a{i}/app.xml": text.format(i) for i in range(count)})


def seconds(directory: Path) -> float:
    """The best of two."""
    best = 1e9
    for _ in range(2):
        started = time.process_time()
        read_tree(directory)
        best = min(best, time.process_time() - started)
    return best


def test_the_cost_of_a_file_is_flat(tmp_path: Path) -> None:
    """Four times the files take about four times as long (loosely: at most eight)."""
    few, more = seconds(many(tmp_path / "few", 500)), seconds(many(tmp_path / "more", 2000))
    assert more < 8 * few


@pytest.mark.bench
def test_ten_thousand_apps_in_five_seconds(tmp_path: Path) -> None:
    """Load and validate, in CPU time: nothing of it waits, and other work on the machine doesn't count."""
    many(tmp_path, 10_000)
    started = time.process_time()
    assert len(read_tree(tmp_path).apps) == 10_000
    assert time.process_time() - started <= 5


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Neither after a good reading nor after a bad one."""
    write_tree(tmp_path, {"apps/web/app.xml": "<app/>", "apps/x/y/z": "x"})
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(InvalidTree):
            read_tree(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def rows(row: Element) -> list[Element]:
    return [row, *(below for child in row.children for below in rows(child))]
