"""Host keys are read as OpenSSH reads them, and whatever stands in the file, nothing breaks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.errors import HostKeyChanged, HostKeyUnknown, K4tError
from k4t.remote import known_hosts
from k4t.remote.known_hosts import HostKey, KnownHosts

pytestmark = pytest.mark.unit


def make_key(content: bytes, kind: str = "ssh-ed25519") -> HostKey:
    name = kind.encode()
    return HostKey(kind, len(name).to_bytes(4, "big") + name + len(content).to_bytes(4, "big") + content)


KEY, OTHER, RSA = make_key(b"a" * 32), make_key(b"b" * 32), make_key(b"c" * 32, "ssh-rsa")


def line(hosts: str, key: HostKey = KEY, marker: str = "") -> str:
    return f"{marker} {hosts} {key.type} {base64.b64encode(key.blob).decode()}".strip()


def hashed(name: str) -> str:
    salt = b"0123456789abcdef0123"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def write(path: Path, *lines: str) -> KnownHosts:
    path.write_text("".join(f"{text}\n" for text in lines))
    return KnownHosts([path])


@pytest.mark.parametrize(
    ("hosts", "name", "matches"),
    [
        ("node1", "node1", True),
        ("node1", "node10", False),
        ("a,node1,b", "node1", True),
        ("NODE1", "node1", True),
        ("[node1]:2222", "[node1]:2222", True),
        ("node1", "[node1]:2222", False),
        ("node*", "node1", True),
        ("node?", "node10", False),
        ("*,!node1", "node1", False),
        ("*,!node1", "node2", True),
        ("!node2", "node1", False),
        ("[node*]:2222", "[node1]:2222", True),
        (hashed("node1"), "node1", True),
        (hashed("node1"), "node2", False),
        (hashed("[node1]:2222"), "[node1]:2222", True),
        ("|1|garbage", "node1", False),
        ("|1|%%|%%", "node1", False),
        ("|2|" + hashed("node1")[3:], "node1", False),
        ("." * 50 + "*" * 50 + "x", "." * 200, False),
    ],
)
def test_host_field(hosts: str, name: str, matches: bool) -> None:
    """Lists, wildcards, negation, ports and hashes name hosts as sshd(8) says."""
    assert known_hosts.matches(hosts, name) is matches


def test_known_key_passes(tmp_path: Path) -> None:
    """A host is itself when one of its enrolled keys is presented, among comments and broken lines."""
    files = write(tmp_path / "k", "# comment", "", "garbage", "a b", line("node1", RSA), line("node1") + " comment")
    files.check("node1", "node1", KEY)


def test_unknown_key_shows_its_fingerprint(tmp_path: Path) -> None:
    """An unknown host is refused with the fingerprint presented and the command that enrols it."""
    with pytest.raises(HostKeyUnknown) as caught:
        write(tmp_path / "k", line("node2")).check("n1", "node1", KEY)
    assert KEY.fingerprint in str(caught.value)
    assert "k4t trust n1" in str(caught.value)


def test_changed_key_shows_both_fingerprints_and_the_line(tmp_path: Path) -> None:
    """A changed key is refused with both fingerprints and the line that knows the old one."""
    with pytest.raises(HostKeyChanged) as caught:
        write(tmp_path / "k", "# x", line("node1")).check("n1", "node1", OTHER)
    for word in (KEY.fingerprint, OTHER.fingerprint, f"{tmp_path}/k:2"):
        assert word in str(caught.value)


def test_key_of_another_type_is_a_change(tmp_path: Path) -> None:
    """A host known by one type of key that presents another is not trusted: that would be a way around."""
    with pytest.raises(HostKeyChanged, match="ED25519"):
        write(tmp_path / "k", line("node1", RSA)).check("n1", "node1", KEY)


def test_revoked_key_is_refused_though_enrolled(tmp_path: Path) -> None:
    """A revocation counts above an enrolment, also from a later file."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(line("node1") + "\n")
    second.write_text(line("*", marker="@revoked") + "\n")
    with pytest.raises(HostKeyChanged, match=rf"revoked at {second}:1"):
        KnownHosts([first, second]).check("n1", "node1", KEY)


def test_certificate_authority_is_no_host_key(tmp_path: Path) -> None:
    """A line of a certificate authority neither breaks the file nor enrols a host."""
    with pytest.raises(HostKeyUnknown):
        write(tmp_path / "k", line("*", marker="@cert-authority")).check("n1", "node1", KEY)


def test_first_file_that_knows_the_host_decides(tmp_path: Path) -> None:
    """What the tree says of a host can't be overruled by the user's file."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(line("node1") + "\n")
    second.write_text(line("node1", OTHER) + "\n")
    with pytest.raises(HostKeyChanged):
        KnownHosts([first, second]).check("n1", "node1", OTHER)
    KnownHosts([tmp_path / "missing", second]).check("n1", "node1", OTHER)


def test_fingerprint_is_that_of_openssh(tmp_path: Path) -> None:
    """The fingerprint is the one that `ssh-keygen -l` prints."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], check=True, capture_output=True, text=True)
    (entry,) = known_hosts.parse(b"h " + (tmp_path / "key.pub").read_bytes())
    assert known_hosts.fingerprint(entry.key) in shown.stdout


@given(st.binary(max_size=400) | st.text(alphabet="|1@*!?,[]: =AaZz\n\0\r", max_size=200).map(str.encode))
def test_no_file_breaks_the_reader(data: bytes) -> None:
    """Whatever the bytes, reading and matching end without an error."""
    for entry in known_hosts.parse(data):
        known_hosts.matches(entry.hosts, "node1")


@given(st.text(alphabet="|1*!?,[]:ab=/+", max_size=60), st.text(alphabet="ab[]:1", max_size=30))
def test_no_host_field_breaks_the_matching(hosts: str, name: str) -> None:
    """Whatever the host field, the answer is yes or no."""
    assert known_hosts.matches(hosts, name) in (True, False)


def test_enrolling_replaces_only_this_host(tmp_path: Path) -> None:
    """Enrolling replaces the host's keys, hashed ones too; every other line stays as it was."""
    path = tmp_path / "k"
    kept = ["# mine", line("node2"), "garbage here", line("*", OTHER, "@revoked"), line("*.lab")]
    path.write_text("\n".join([*kept, line(hashed("node1")), line("node1"), line("a,node1", RSA)]))
    known_hosts.enrol(path, ["node1"], [OTHER, RSA])
    text = path.read_text().splitlines()
    assert text[: len(kept)] == kept
    assert text[len(kept) :] == [line("a", RSA), line("node1", OTHER), line("node1", RSA)]
    assert [file.name for file in tmp_path.iterdir()] == ["k"]


def test_enrolling_makes_the_file(tmp_path: Path) -> None:
    """The first host of a tree makes the file; a directory that is missing is named."""
    known_hosts.enrol(tmp_path / "k", ["node1"], [KEY])
    KnownHosts([tmp_path / "k"]).check("n1", "node1", KEY)
    with pytest.raises(K4tError, match=r"can't write .*/no/k"):
        known_hosts.enrol(tmp_path / "no" / "k", ["node1"], [KEY])
