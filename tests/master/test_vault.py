"""The secrets of one run: fetched once, told apart by digests, unknown where they can't be had."""

from __future__ import annotations

import pytest

from k4t.errors import SecretUnavailable
from k4t.master.planning.specs import secret_digests
from k4t.master.vault import Vault
from k4t.model.app import App, Env, File, Image, Job
from k4t.model.shared import Where
from k4t.model.spec import Cluster, SecretRef, Tree
from k4t.tree.age import NoIdentity
from k4t.tree.secret_files import digest

pytestmark = pytest.mark.unit
KEY = b"k" * 32
WEB = App(
    "web",
    Image("web:1"),
    env=(Env("A", secret="one"), Env("PLAIN", "x")),
    files=(File("/key", secret="two"), File("/conf", source="c", sha256="cc")),
    jobs=(Job("nightly", schedule="0 3 * * *", env=(Env("B", secret="three"),)),),
)
OTHER = App("other", Image("other:1"), env=(Env("A", secret="four"),))
NAMES = ("one", "two", "three", "four")
TREE = Tree(
    Cluster("prod", "k7f3q2m9"),
    apps={"web": WEB, "other": OTHER},
    secrets={name: SecretRef(name, "age", where=Where(f"secrets/{name}.age")) for name in NAMES},
)


class Source:
    """Gives every secret but those that it misses, and counts."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        self.asked: list[str] = []

    def __call__(self, ref: SecretRef) -> str:
        self.asked.append(ref.name)
        if ref.name in self.missing:
            raise SecretUnavailable(ref.name, str(ref.where), "is away", "look for it")
        return f"value of {ref.name}"


def test_all_that_an_app_uses_is_told_apart() -> None:
    """Environment, files and the jobs' environment; each fetched once, also when it is planned twice."""
    source = Source()
    vault = Vault(TREE, source, lambda: KEY)
    for _ in range(2):
        tree, unknown = vault.digested(["web"])
        assert unknown == ()
        web = tree.apps["web"]
        assert secret_digests(web) == {n: digest(KEY, n, f"value of {n}") for n in ("one", "two")}
        assert web.jobs[0].env[0].digest == digest(KEY, "three", "value of three")
        assert web.files[1].sha256 == "cc"
        assert tree.apps["other"] == OTHER
    assert sorted(source.asked) == ["one", "three", "two"]
    assert vault.of(WEB) == {"one": "value of one", "two": "value of two"}


def test_what_cant_be_had_is_unknown_and_the_rest_is_known() -> None:
    """One sentence for each, with what to do."""
    tree, unknown = Vault(TREE, Source("two"), lambda: KEY).digested(["web", "other"])
    assert unknown == ("web: can't tell whether secret two changed: is away; look for it",)
    assert secret_digests(tree.apps["web"])["two"] == ""
    assert secret_digests(tree.apps["web"])["one"] != ""


def test_without_identity_nothing_is_asked() -> None:
    """The key can't be opened, so no value is of use."""

    def none() -> bytes | None:
        raise NoIdentity("no identity here", "set K4T_IDENTITY")

    source = Source()
    tree, unknown = Vault(TREE, source, none).digested(["other"])
    assert unknown == ("other: can't tell whether secret four changed: no identity here; set K4T_IDENTITY",)
    assert tree.apps == TREE.apps
    assert source.asked == []


def test_a_tree_without_secrets_opens_nothing() -> None:
    """No identity is looked for."""

    def never() -> bytes | None:
        raise AssertionError

    plain = Tree(TREE.cluster, apps={"x": App("x", Image("x:1"))})
    assert Vault(plain, Source(), never).digested(["x"]) == (plain, ())
