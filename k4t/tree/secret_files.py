"""What stands in `secrets/`: NAME.age, `recipients`, and `digest-key`. Written whole, or not at all.

`recipients` is text as `age -R` reads it: one key a line, and lines that begin with #. `digest-key` is a random key,
encrypted to the same recipients: digests made with it tell a changed secret, and can't be guessed back.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k4t.errors import K4tError, Usage
from k4t.tree import age, values
from k4t.tree.edit import write_file
from k4t.tree.files import no_tree

MAX_BYTES = 64 * 1024
KEY_BYTES = 32
RECIPIENTS = "recipients"
DIGEST_KEY = "digest-key"


@dataclass(frozen=True, slots=True)
class Recipient:
    """`name`: of the comment above it, or an ssh key's own."""

    key: str
    name: str = ""


def digest(key: bytes, name: str, value: str) -> str:
    """HMAC-SHA256 (hex) of a secret's value. The name goes in, so that equal values of two secrets don't show."""
    return hmac.new(key, b"k4t-secret-v1\0" + name.encode() + b"\0" + value.encode(), "sha256").hexdigest()


class SecretFiles:
    """The secrets of one tree. Every method raises K4tError naming the file, never a value."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.directory = tree / "secrets"

    # --- reading --------------------------------------------------------------------------------------------

    def value(self, name: str, identities: Sequence[Any]) -> str:
        """Raises NoIdentity (see `age.decrypt`), K4tError for what can't be read."""
        return _text(self._opened(f"{name}.age", identities), f"secrets/{name}.age")

    def digest_key(self, identities: Sequence[Any]) -> bytes | None:
        """None: the tree has none."""
        if not self.has_digest_key:
            return None
        key = self._opened(DIGEST_KEY, identities)
        if len(key) != KEY_BYTES:
            raise K4tError(f"secrets/{DIGEST_KEY} holds {len(key)} bytes instead of {KEY_BYTES}", "restore it")
        return key

    @property
    def has_digest_key(self) -> bool:
        return (self.directory / DIGEST_KEY).exists()

    def recipients(self) -> list[Recipient]:
        try:
            text = (self.directory / RECIPIENTS).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise K4tError(f"can't read {self.directory / RECIPIENTS}: {error}") from None
        found, comment = [], ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("#"):
                comment = line.lstrip("# ")
                continue
            if line:
                key, own = _key_and_name(line)
                found.append(Recipient(key, comment or own))
            comment = ""
        return found

    # --- writing --------------------------------------------------------------------------------------------

    def set(self, name: str, value: str, identities: Sequence[Any]) -> bool:
        """Encrypt a value; whether that changed anything (unknown counts as changed). Makes the digest key."""
        self.check_name(name)
        data = value.encode("utf-8", "surrogateescape")
        _text(data, f"the value of {name}")
        path = self.directory / f"{name}.age"
        keys = self._keys()
        self._ensure_digest_key(keys)
        if identities and path.exists() and self._same(name, value, identities):
            return False
        write_file(path, age.encrypt(data, keys))
        return True

    def add_recipient(self, text: str, name: str, identities: Sequence[Any]) -> int:
        """Encrypt everything to one more; how many files. Raises Usage when it is one already."""
        if not (self.tree / "cluster.xml").is_file():
            raise no_tree(self.tree, "no cluster.xml")
        age.parse_recipient(text)
        if "\n" in name or "\r" in name:
            raise Usage("a recipient's name is one line", "leave it out")
        key, own = _key_and_name(text)
        present = self.recipients()
        if key in (one.key for one in present):
            raise Usage(f"{_short(key)} is a recipient already", "k4t secret recipients list")
        return self._re_encrypt([*present, Recipient(key, name or own)], identities)

    def remove_recipient(self, text: str, identities: Sequence[Any]) -> int:
        """Encrypt everything to the others; how many files. `text`: the key, or its name."""
        present = self.recipients()
        key, _ = _key_and_name(text)
        gone = [one for one in present if text == one.name or key == one.key]
        if len(gone) != 1:
            names = ", ".join(one.name or _short(one.key) for one in present) or "none"
            raise Usage(f"{'several recipients are' if gone else 'no recipient is'} {text!r}", f"there are: {names}")
        if len(present) == 1:
            raise Usage("the last recipient stays: nobody could open the secrets", "add another first")
        return self._re_encrypt([one for one in present if one not in gone], identities)

    def _re_encrypt(self, recipients: Sequence[Recipient], identities: Sequence[Any]) -> int:
        """Opens everything before it writes anything; the list of recipients is written last, so that a run that was
        cut short can be repeated."""
        names = sorted(path.name for path in self.directory.glob("*.age") if not path.name.startswith("."))
        if self.has_digest_key:
            names.append(DIGEST_KEY)
        opened = {name: self._opened(name, identities) for name in names}
        keys = [one.key for one in recipients]
        self.directory.mkdir(exist_ok=True)
        for name, data in opened.items():
            write_file(self.directory / name, age.encrypt(data, keys))
        self._ensure_digest_key(keys)
        write_file(self.directory / RECIPIENTS, _written(recipients))
        return len(opened)

    def _ensure_digest_key(self, keys: Sequence[str]) -> None:
        if not self.has_digest_key:
            write_file(self.directory / DIGEST_KEY, age.encrypt(secrets.token_bytes(KEY_BYTES), keys))

    # --- the parts ------------------------------------------------------------------------------------------

    def _keys(self) -> list[str]:
        keys = [one.key for one in self.recipients()]
        if not keys:
            raise Usage(f"{self.directory / RECIPIENTS} names nobody", "k4t secret recipients add KEY")
        return keys

    def check_name(self, name: str) -> None:
        """Raises Usage when no value can be kept under this name here."""
        try:
            values.NAMED.parse(name)
        except ValueError as error:
            why = str(error) or f"is not {values.NAMED.phrase}"
            raise Usage(f"name {name!r} {why}", f"as in {values.NAMED.example}") from None
        if not (self.tree / "cluster.xml").is_file():
            raise no_tree(self.tree, "no cluster.xml")
        if (self.directory / f"{name}.xml").exists():
            raise Usage(f"secrets/{name}.xml says where {name} is kept", "change it there, or remove that file first")

    def _same(self, name: str, value: str, identities: Sequence[Any]) -> bool:
        try:
            return hmac.compare_digest(self.value(name, identities).encode(), value.encode())
        except K4tError:
            return False

    def _opened(self, file: str, identities: Sequence[Any]) -> bytes:
        path = self.directory / file
        try:
            with path.open("rb") as stream:
                data = stream.read(2 * MAX_BYTES + 1)
        except OSError as error:
            raise K4tError(f"can't read {path}: {error.strerror}") from None
        try:
            return age.decrypt(data, identities)
        except K4tError as error:
            raise type(error)(f"secrets/{file}: {error.message}", error.remedy) from None


def _text(data: bytes, what: str) -> str:
    """As text that an environment can hold."""
    if not data:
        raise Usage(f"{what} is empty", "put a value there")
    if len(data) > MAX_BYTES:
        raise Usage(f"{what} has {len(data)} bytes; at most {MAX_BYTES} are allowed", "is it the right one?")
    if b"\0" in data:
        raise Usage(f"{what} holds a NUL byte", "secrets are text")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Usage(f"{what} is not UTF-8", "secrets are text") from None


def one_line(text: str) -> str:
    """Without the line break that ends a single line: `echo` and editors put it there. Several lines stay as they
    are, since a key file wants its last line break."""
    return text.rstrip("\r\n") if text.count("\n") == 1 and text.endswith("\n") else text


def _key_and_name(text: str) -> tuple[str, str]:
    words = text.split()
    if words and words[0].startswith("ssh-"):
        return " ".join(words[:2]), " ".join(words[2:])
    return text.strip(), ""


def _written(recipients: Iterable[Recipient]) -> bytes:
    lines = ["# Who can open these secrets. k4t secret recipients add|remove changes it, and encrypts anew.", ""]
    for one in recipients:
        lines += [f"# {one.name}", one.key] if one.name else ["", one.key]
    return ("\n".join(lines) + "\n").encode()


def _short(key: str) -> str:
    return key if len(key) <= 70 else f"{key[:30]}…{key[-16:]}"
