"""New trees and things, names for completion, secrets by reference."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from k4t.errors import K4tError, Usage
from k4t.model.hosts import Ssh
from k4t.model.shared import Where
from k4t.model.spec import SecretRef
from k4t.tree.create import add_dns, add_gateway, add_node, create, remove
from k4t.tree.names import names
from k4t.tree.read import read_tree
from k4t.tree.secrets import value
from tests.tree.support import write_tree

pytestmark = pytest.mark.unit


def test_a_new_tree_is_valid_and_grows(tmp_path: Path) -> None:
    """init, then a node, a gateway, a DNS server; each id is its own."""
    db = tmp_path / "new" / "db"
    create(db, "prod")
    assert read_tree(db).cluster.name == "prod"
    add_node(db, "n1", "10.0.0.1, fd00::1", ssh=Ssh(user="deploy", host="n1.mgmt", sudo=True))
    add_gateway(db, "gw1", "10.0.0.2")
    add_dns(db, "ns1", "10.0.0.2", zone="k4t.lab")
    (db / "secrets/tsig.xml").write_text('<secret environment="TSIG"/>')
    add_dns(db, "ns2", "10.0.0.3", zone="k4t.lab", driver="rfc2136", key_name="k4t", secret="tsig")
    tree = read_tree(db)
    assert (tree.dns["ns2"].key_name, tree.dns["ns2"].secret) == ("k4t", "tsig")
    assert tree.nodes["n1"].ssh.user == "deploy"
    assert (tree.gateways["gw1"].driver, tree.dns["ns1"].zone) == ("envoy", "k4t.lab")
    create(tmp_path / "other", "prod")
    assert read_tree(tmp_path / "other").cluster.id != tree.cluster.id
    assert (db / ".gitignore").read_text() == ".k4t*\n"


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """Neither a tree, nor anything else, nor a thing of the tree."""
    create(tmp_path / "db", "prod")
    with pytest.raises(Usage, match="there is a tree"):
        create(tmp_path / "db", "prod")
    with pytest.raises(Usage, match="is not empty: db"):
        create(tmp_path, "prod")
    with pytest.raises(Usage, match="name 'Prod' is not a name"):
        create(tmp_path / "x", "Prod")
    add_node(tmp_path / "db", "n1", "10.0.0.1")
    with pytest.raises(Usage, match="is there already"):
        add_node(tmp_path / "db", "n1", "10.0.0.2")
    with pytest.raises(Usage, match="address 'n2' is not one IPv4"):
        add_node(tmp_path / "db", "n2", "n2")
    with pytest.raises(Usage, match="no tree at"):
        add_node(tmp_path / "none", "n1", "10.0.0.1")


def test_a_thing_is_removed_by_name(tmp_path: Path) -> None:
    """A file, an app's directory with all it holds; a name that isn't there lists those that are."""
    write_tree(tmp_path, {"apps/web/app.xml": "<app><image>w:1</image></app>", "apps/web/a/b": "x"})
    remove(tmp_path, "app", "web")
    remove(tmp_path, "nodes", "n1")
    assert sorted(read_tree(tmp_path).nodes) == ["n2"]
    assert list((tmp_path / "apps").iterdir()) == []
    with pytest.raises(Usage, match=r"no n1 in .*there are: n2"):
        remove(tmp_path, "node", "n1")
    with pytest.raises(Usage):
        remove(tmp_path, "app", "../nodes")


def test_names_are_listed_without_reading_anything(tmp_path: Path) -> None:
    """Also of a broken tree; nothing is never an error."""
    files: dict[str, str | bytes] = {
        "apps/web/app.xml": "broken",
        "secrets/a.age": "",
        "nodes/README.md": "",
        "nodes/.x": "",
    }
    write_tree(tmp_path, files)
    assert names(tmp_path, "app") == names(tmp_path, "apps") == ["web"]
    assert names(tmp_path, "node") == ["n1", "n2"]
    assert names(tmp_path, "secret") == ["a"]
    assert names(tmp_path / "none", "nodes") == names(tmp_path, "no\0such") == []


def ref(kind: str, source: str) -> SecretRef:
    return SecretRef("s", kind, source, Where("secrets/s.xml", 1))  # type: ignore[arg-type]


def test_a_secret_is_fetched_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable, a command without a shell, a file only its owner reads."""
    monkeypatch.setenv("K4T_TEST_SECRET", "from env")
    path = tmp_path / "value"
    path.write_text("from file\n")
    path.chmod(0o600)
    assert value(ref("environment", "K4T_TEST_SECRET"), tmp_path) == "from env"
    assert value(ref("command", "printf '%s\\n' '$HOME; x'"), tmp_path) == "$HOME; x"
    assert value(ref("file", "value"), tmp_path) == "from file"
    assert value(ref("file", str(path)), Path("/")) == "from file"


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        (
            "age",
            "secrets/s.age",
            "secret s (secrets/s.xml:1): no identity at /no/such/identity; K4T_IDENTITY names it",
        ),
        ("environment", "K4T_TEST_NOT_SET", "environment 'K4T_TEST_NOT_SET' is not set; export K4T_TEST_NOT_SET"),
        ("command", "no-such-program-k4t x", "failed: no such program: no-such-program-k4t"),
        ("command", "sh -c 'echo hunter2; echo no hunter2 here >&2; exit 3'", "ended with status 3; run it by hand"),
        ("command", "sh -c 'echo locked >&2; exit 3'", "ended with status 3: locked; run it by hand"),
        ("command", "true", "is empty"),
        ("command", "printf '\\377'", "is not UTF-8"),
        ("command", "printf 'a\\000b'", "NUL"),
        ("file", "open", "has mode 0644: others may read it; chmod 600"),
        ("file", "none", "can't be read: No such file or directory"),
        ("file", ".", "can't be read: Is a directory"),
        ("file", "/dev/null", "is no regular file"),
    ],
)
def test_a_secret_that_cant_be_had_is_said_without_its_value(
    kind: str, source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which secret, where it stands, why, what to do; never what a command printed."""
    monkeypatch.setenv("K4T_IDENTITY", "/no/such/identity")
    (tmp_path / "open").write_text("hunter2")
    (tmp_path / "open").chmod(0o644)
    started = time.monotonic()
    with pytest.raises(K4tError) as caught:
        value(ref(kind, source), tmp_path)
    assert said in str(caught.value)
    assert "secret s (secrets/s.xml:1)" in str(caught.value)
    assert "hunter2" not in str(caught.value).replace(source, "").replace(repr(source), "")
    assert time.monotonic() - started < 30
