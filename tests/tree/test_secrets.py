"""Secrets in the tree: encrypted to people, opened with one identity, told apart by a digest that says nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from k4t.errors import K4tError, SecretUnavailable, Usage
from k4t.model.shared import Where
from k4t.model.spec import SecretRef
from k4t.tree import age
from k4t.tree.read import read_tree
from k4t.tree.secret_edit import edited
from k4t.tree.secret_files import SecretFiles, digest, one_line
from k4t.tree.secret_uses import remove, uses
from k4t.tree.secrets import digest_key, value
from tests.tree.support import write_tree

pytestmark = pytest.mark.unit
VALUE = "correct horse battery staple"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretFiles:
    """A tree whose secrets are encrypted to one age identity, which is the one of this machine."""
    path = tmp_path / "home" / "identity"
    monkeypatch.setenv("K4T_IDENTITY", str(path))
    public = age.make_identity(path, "a test")
    found = SecretFiles(write_tree(tmp_path / "db", {}))
    found.add_recipient(public, "me", [])
    return found


def ssh_key(directory: Path, kind: str, passphrase: str = "") -> Path:
    path = directory / f"id_{kind}{len(passphrase)}"
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", f"{kind}@test", "-f", str(path)]
    subprocess.run(argv, check=True)
    return path


def mine() -> list[object]:
    return age.read_identities(age.identity_path())


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def ref(name: str) -> SecretRef:
    return SecretRef(name, "age", f"secrets/{name}.age", Where(f"secrets/{name}.age"))


def test_what_is_set_comes_back_and_the_tree_is_valid(files: SecretFiles) -> None:
    """No file of the tree holds the value, and the reader knows all of them."""
    assert files.set("db-password", VALUE, mine())
    assert value(ref("db-password"), files.tree) == VALUE
    tree = read_tree(files.tree)
    assert tree.secrets["db-password"].kind == "age"
    assert tree.no_effect == ()
    assert all(VALUE.encode() not in data for data in contents(files.directory).values())
    assert sorted(contents(files.directory)) == ["db-password.age", "digest-key", "recipients"]


def test_the_same_value_is_not_written_again(files: SecretFiles) -> None:
    """Encrypting anew would be a change of the tree that changes nothing."""
    files.set("s", VALUE, mine())
    before = contents(files.directory)
    assert not files.set("s", VALUE, mine())
    assert contents(files.directory) == before
    assert files.set("s", VALUE + "!", mine())


def test_every_kind_of_key_opens_what_it_is_a_recipient_of(files: SecretFiles, tmp_path: Path) -> None:
    """age keys, ssh-ed25519 and ssh-rsa; a key that is taken out opens nothing that is encrypted from then on."""
    files.set("s", VALUE, mine())
    keys = [ssh_key(tmp_path, kind) for kind in ("ed25519", "rsa")]
    for key in keys:
        files.add_recipient(age.public_key(f"{key}.pub"), "", mine())
    assert [one.name for one in files.recipients()] == ["me", "ed25519@test", "rsa@test"]
    for key in keys:
        assert files.value("s", age.read_identities(key)) == VALUE
        assert age.recipient_of(key) in [one.key for one in files.recipients()]
    digest_before = files.digest_key(mine())
    files.remove_recipient("me", age.read_identities(keys[0]))
    assert files.digest_key(age.read_identities(keys[1])) == digest_before
    with pytest.raises(age.NoIdentity, match="not encrypted to the identity here"):
        files.value("s", mine())


def test_the_recipients_file_is_read_by_age_itself(files: SecretFiles) -> None:
    """One key a line, comments on lines of their own: age -R secrets/recipients."""
    lines = (files.directory / "recipients").read_text().splitlines()
    assert all(not line or line.startswith(("#", "age1", "ssh-")) for line in lines)
    assert "# me" in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age1nonsense", "'age1nonsense' is no recipient"),
        ("ssh-dss AAAA x", "is no recipient"),
        ("AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQ", "is neither a recipient"),
    ],
)
def test_what_is_no_recipient_is_refused(files: SecretFiles, text: str, said: str) -> None:
    """Nothing is encrypted to a key that can't be read, and nothing was changed."""
    before = contents(files.directory)
    with pytest.raises(Usage, match=said):
        files.add_recipient(age.public_key(text), "", mine())
    assert contents(files.directory) == before


def test_a_private_key_given_as_recipient_is_not_repeated(files: SecretFiles) -> None:
    """It would stand in a log."""
    private = age.identity_path().read_text().splitlines()[-1]
    with pytest.raises(Usage) as caught:
        files.add_recipient(private, "", mine())
    assert private not in str(caught.value)
    assert "a private key is no recipient" in str(caught.value)


def test_the_last_recipient_stays(files: SecretFiles) -> None:
    """Else nobody could open anything again."""
    with pytest.raises(Usage, match="the last recipient stays"):
        files.remove_recipient("me", mine())


def test_the_digest_is_keyed_and_the_same_everywhere(files: SecretFiles, tmp_path: Path) -> None:
    """Whoever can open the tree computes the same; who can't has no way to try passwords."""
    files.set("s", "1234", mine())
    key = digest_key(files.tree)
    assert key is not None
    other = SecretFiles(write_tree(tmp_path / "other", {}))
    other.directory.mkdir()
    for name, data in contents(files.directory).items():
        (other.directory / name).write_bytes(data)
    assert digest_key(other.tree) == key
    made = digest(key, "s", "1234")
    assert made == digest(key, "s", "1234") != digest(key, "s", "1235")
    assert made != digest(key, "t", "1234")
    assert made not in (hashlib.sha256(b"1234").hexdigest(), digest(b"\0" * 32, "s", "1234"))


def test_without_identity_it_is_said_what_to_do(files: SecretFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which secret, and where an identity would be looked for."""
    files.set("s", VALUE, mine())
    monkeypatch.delenv("K4T_IDENTITY")
    monkeypatch.setenv("HOME", str(files.tree))
    with pytest.raises(SecretUnavailable) as caught:
        value(ref("s"), files.tree)
    assert str(caught.value).startswith("secret s (secrets/s.age): no identity here; set K4T_IDENTITY")
    assert caught.value.why == "no identity here"


def test_an_identity_that_others_may_read_is_refused(files: SecretFiles) -> None:
    """As ssh does it."""
    os.chmod(age.identity_path(), 0o640)
    with pytest.raises(K4tError, match="has mode 0640: others may read it; chmod 600"):
        mine()


def test_an_identity_with_a_passphrase_is_named(tmp_path: Path) -> None:
    """It can't be used, and nothing of it is shown."""
    with pytest.raises(K4tError, match="one with a passphrase can't be used"):
        age.read_identities(ssh_key(tmp_path, "ed25519", "passphrase"))


def test_an_identity_is_never_overwritten(files: SecretFiles) -> None:
    """It may be the only one that opens something."""
    before = age.identity_path().read_bytes()
    assert age.identity_path().stat().st_mode & 0o777 == 0o600
    with pytest.raises(K4tError, match="File exists"):
        age.make_identity(age.identity_path(), "again")
    assert age.identity_path().read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"garbage", b"age-encryption.org/v1\n-> X25519 x\n"])
def test_a_damaged_secret_is_named(files: SecretFiles, damage: bytes) -> None:
    """Its file, and that it is damaged."""
    files.set("s", VALUE, mine())
    (files.directory / "s.age").write_bytes(damage)
    with pytest.raises(K4tError, match=r"secrets/s\.age"):
        files.value("s", mine())


def test_a_flipped_bit_is_noticed(files: SecretFiles) -> None:
    """Encryption is authenticated: no other value comes out."""
    files.set("s", VALUE, mine())
    path = files.directory / "s.age"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(K4tError, match="no age file, or damaged"):
        files.value("s", mine())


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("a\0b", "NUL byte"), ("x" * 65537, "65537 bytes; at most 65536"), ("\udcff", "not UTF-8")],
)
def test_what_can_be_no_secret_is_refused(files: SecretFiles, text: str, said: str) -> None:
    """And never repeated."""
    with pytest.raises(Usage, match=said):
        files.set("s", text, mine())
    assert not (files.directory / "s.age").exists()


def test_a_secret_is_kept_in_one_place(files: SecretFiles) -> None:
    """NAME.xml says where; beside it NAME.age would be a second truth."""
    (files.directory / "s.xml").write_text('<secret environment="S"/>\n')
    with pytest.raises(Usage, match=r"secrets/s\.xml says where s is kept"):
        files.set("s", VALUE, mine())


def test_a_single_line_comes_without_its_line_break() -> None:
    """echo and editors put it there; a key of several lines needs its last one."""
    assert one_line("secret\n") == "secret" == one_line("secret\r\n") == one_line("secret")
    assert one_line("-----BEGIN\nMIIE\n-----END\n").endswith("-----END\n")
    assert one_line("\n") == ""


def test_who_uses_what(files: SecretFiles) -> None:
    """Variables, files, registries; one that is used can't be removed."""
    files.set("s", VALUE, mine())
    files.set("t", VALUE, mine())
    app = '<app><image>x:1</image><env name="A" secret="s"/><file secret="s" target="/run/s"/></app>\n'
    write_tree(files.tree, {"apps/web/app.xml": app}, base=False)
    tree = read_tree(files.tree)
    assert uses(tree) == {"s": ["web: env A", "web: file /run/s"], "t": []}
    with pytest.raises(Usage, match="secret s is used by web: env A; web: file /run/s"):
        remove(files.tree, tree, "s")
    assert remove(files.tree, tree, "t").endswith("secrets/t.age")
    assert not (files.directory / "t.age").exists()


def test_the_editor_works_on_memory_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of mode 0600 in a directory of mode 0700 on a tmpfs, gone afterwards, also when the editor fails."""
    program = tmp_path / "editor"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\npath = sys.argv[1]\n"
        f"out = open({str(tmp_path / 'seen')!r}, 'w')\n"
        "kind = os.popen(f'stat -f -c %T {path}').read().strip()\n"
        "modes = [oct(os.stat(p).st_mode & 0o777) for p in (path, os.path.dirname(path))]\n"
        "out.write(f'{path} {kind} {modes}')\nopen(path, 'a').write('more\\n')\nsys.exit(int(os.environ['FAIL']))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(program))
    for fail in ("0", "3"):
        monkeypatch.setenv("FAIL", fail)
        if fail == "0":
            assert edited("s", "value") == "value\nmore\n"
        else:
            with pytest.raises(K4tError, match="the editor ended with status 3: secret s is as it was"):
                edited("s", "value")
        path, rest = (tmp_path / "seen").read_text().split(" ", 1)
        assert rest == "tmpfs ['0o600', '0o700']"
        assert not Path(path).parent.exists()
