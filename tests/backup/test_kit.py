"""The recovery kit: what was printed can be typed in, and what was mistyped is named."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k4t.errors import K4tError
from k4t.master.backup.kit import PAGE_LINES, Kit, KitHost, page, parse, read
from k4t.tree import age, signing

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent / "golden" / "kit.txt"
IDENTITY = "AGE-SECRET-KEY-1XAULYDLGCDJT74Y396P5YTE2558SPEK4M47RDN9WES97J7C787DSTZSA2H"
PRINTS = [f"SHA256:{letter * 42}{number}" for number, letter in enumerate("aBcDeF")]
KIT = Kit(
    name="prod",
    id="k7f3q2m9",
    key=signing.public_of(bytes(range(32))),
    recipient=str(age.parse_identity(IDENTITY).to_public()),
    identity=IDENTITY,
    hosts=(
        KitHost("node1", "root", "10.88.0.11", 22, "ED25519", PRINTS[0], backup=True),
        KitHost("vault", "Backup", "2001:db8::9", 2222, "RSA", PRINTS[1], jump="ops@bastion:22", backup=True),
        KitHost("end", "deploy", "node2.mgmt", 22, "ECDSA", PRINTS[2], sudo=True),
        KitHost("node3", "root", "10.88.0.13"),
    ),
    jumps=(KitHost("", "ops", "bastion", 22, "ED25519", PRINTS[3]),),
    made="2026-11-20T16:00:00Z by anna@laptop",
)


def test_the_page_is_what_earlier_ones_read() -> None:
    """Pages lie in safes for years: this one may be added to, and never stops being read."""
    assert parse(GOLDEN.read_text()) == KIT
    assert page(KIT, secrets=False) == GOLDEN.read_text()


def test_it_fits_a_sheet_of_paper() -> None:
    """However many hosts there are: backup targets come first, and what is missing is said."""
    many = dataclasses.replace(KIT, hosts=KIT.hosts + tuple(KitHost(f"n{i}", "root", f"10.9.0.{i}", 22, "ED25519",
                               PRINTS[4]) for i in range(100)))  # fmt: skip
    lines = page(many, secrets=False).splitlines()
    assert len(lines) <= PAGE_LINES
    assert max(map(len, lines)) <= 80
    found = parse("\n".join(lines))
    assert found.hosts == many.hosts[: len(found.hosts)]
    assert found.more == len(many.hosts) - len(found.hosts) > 50


def test_it_is_an_identity_file(tmp_path: Path) -> None:
    """`age -i kit.txt` and K4T_IDENTITY=kit.txt open what is encrypted to it."""
    path = tmp_path / "kit.txt"
    path.write_text(page(KIT))
    path.chmod(0o600)
    assert age.decrypt(age.encrypt(b"x", [KIT.recipient]), age.read_identities(path)) == b"x"
    assert read(path) == KIT


@settings(max_examples=50)
@given(st.randoms(use_true_random=False))
def test_typed_in_anew(source: random.Random) -> None:
    """Other line breaks, no #, other white space, no introduction; capitals where they don't matter."""
    text = GOLDEN.read_text()
    words = text[text.index("# format:") : text.index("# end")].replace("#", " ").split()
    typed = ""
    for word in words:
        plain = word if word.startswith(("SHA256:", "ed25519:", "20", "by")) or "@" in word else word.upper()
        typed += source.choice((word, plain)) + source.choice((" ", "\n", "\n# ", "   \n\n\t"))
    assert parse(typed + "\nEND\nwhatever follows: host: x") == KIT


def _keeps_quiet(error: K4tError) -> None:
    assert IDENTITY[20:] not in str(error)


@given(st.data())
@settings(max_examples=300)
def test_a_slip_is_found(data: st.DataObject) -> None:
    """One wrong character anywhere in what counts: refused, or that host is left out and named. Nothing is misread."""
    text = GOLDEN.read_text()
    start, end = text.index("# cluster:"), text.index("# end")
    places = [i for i in range(start, end) if text[i].isalnum() and not text.startswith(("made", "by"), i)]
    at = data.draw(st.sampled_from(places))
    letter = data.draw(st.sampled_from([c for c in "aZ09ol" if c.lower() != text[at].lower()]))
    typed = text[:at] + letter + text[at + 1 :]
    try:
        found = parse(typed)
    except K4tError as error:
        _keeps_quiet(error)
        return
    good = {*KIT.hosts, *KIT.jumps}
    assert {*found.hosts, *found.jumps} <= good
    assert len(found.hosts) + len(found.jumps) == len(good) or found.damaged or found.jumps == ()
    assert (found.name, found.id, found.key) == (KIT.name, KIT.id, KIT.key)
    assert found.identity in (KIT.identity, "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# format: 1", "# format: 2", "format 2, this k4t reads 1"),
        ("# format: 1", "", "no line “format: 1”"),
        ("prod k7f3q2m9", "prod k7f3q2n9", "kit:21: the line does not fit its check"),
        ("ed25519:A6EH", "ed25519:A6EJ", "one of them was mistyped"),
        ("ed25519:A6EH", "ed25519:", "is no key like"),
        (IDENTITY, IDENTITY[:-1] + "4", "the identity was mistyped"),
        ("# key:", "# kee:", "the line “key:” is missing"),
    ],
)
def test_what_can_not_be_used_is_named(old: str, new: str, said: str) -> None:
    """By file and line where there is one; the identity is never repeated."""
    assert old in GOLDEN.read_text()
    with pytest.raises(K4tError) as caught:
        parse(GOLDEN.read_text().replace(old, new))
    assert said in str(caught.value)
    _keeps_quiet(caught.value)


def test_another_cluster_s_identity_is_refused() -> None:
    """It would open nothing."""
    other = "AGE-SECRET-KEY-1QEJ9Q9TM9S60D5HEKAHFFR0HDHX023ACKD6JSWK8R900AYV8MKQQ5QFHHQ"
    with pytest.raises(K4tError, match="does not belong to age1"):
        parse(GOLDEN.read_text().replace(IDENTITY, other))


def test_a_page_without_the_identity_says_so() -> None:
    """`kit --forget` took it off the machine."""
    text = page(dataclasses.replace(KIT, identity=""))
    assert "AGE-SECRET" not in text
    assert "can't open encrypted copies" in text
    assert parse(text) == dataclasses.replace(KIT, identity="")


def test_whether_it_opens_secrets_is_said() -> None:
    """And how to let it."""
    assert "K4T_IDENTITY=" in page(KIT, secrets=True)
    assert "secret recipients add" in page(KIT, secrets=False)
    assert "secret" not in page(KIT, secrets=None)
