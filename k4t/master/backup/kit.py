"""The recovery kit: one page of text that, with k4t and an SSH key, brings a cluster back on a bare machine.

It is a valid age identity file too: every line begins with #, but for the identity. What k4t reads of it are
*records*: words after a keyword with a colon, up to the next keyword, from `format:` to `end`. White space, line breaks
and # don't count, upper and lower case only in keys, fingerprints and logins. Records that have no check of their own
end with one: six hex digits of a sha256, in brackets. So a page can be typed in, and what was mistyped is named.

    # format: 1
    # cluster: prod k7f3q2m9 [c0ffee]
    # made: 2026-11-20T16:00:00Z by anna@laptop
    # key: ed25519:BASE64
    # fingerprint: 0123 4567 89ab cdef                    of the key
    # recipient: age1…                                    that belongs to the identity
    # identity:
    AGE-SECRET-KEY-1…
    # host: node1 root@10.88.0.11:22 via ops@bastion:22 backup sudo
    #   ED25519 SHA256:… [c0ffee]
    # jump: ops@bastion:22
    #   ED25519 SHA256:… [c0ffee]
    # end

A golden test pins the format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.model.value import value
from k4t.tree.signing import fingerprint

FORMAT = 1
PAGE_LINES = 60
MAX_BYTES = 256 * 1024
KEY_TYPES = ("ED25519", "ECDSA", "RSA")
"""The ones to ask for first."""
_KEYWORDS = frozenset(
    ("format", "cluster", "made", "key", "fingerprint", "recipient", "identity", "host", "jump", "more", "end")
)
_CHECK = re.compile(r"\[([0-9a-f]{6})\]", re.IGNORECASE)
_PRINT = "SHA256:"
_PRINT_LENGTH = len(_PRINT) + 43
_PLACE = re.compile(r"(?P<user>[^\s@]*)@(?P<host>\[[0-9a-f:.%]+\]|[^\s:\[\]]+):(?P<port>\d{1,5})", re.IGNORECASE)


@value
class KitHost:
    """A host that may be asked for copies, and its host key (“ED25519”, “SHA256:…”), if one was known. `jump` as in
    <ssh jump>."""

    name: str
    user: str
    host: str
    port: int = 22
    key_type: str = ""
    key: str = ""
    jump: str = ""
    sudo: bool = False
    backup: bool = False

    @property
    def place(self) -> str:
        return f"{self.user}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@value
class Kit:
    """`key` is the cluster's (“ed25519:…”). `identity`: “AGE-SECRET-KEY-1…”, or "" on a page without it. `jumps`: hosts
    on the way to others. `more`: how many of the tree's hosts are not on the page. `damaged`: what was left out, in
    words."""

    name: str
    id: str
    key: str
    recipient: str
    identity: str = ""
    hosts: tuple[KitHost, ...] = ()
    jumps: tuple[KitHost, ...] = ()
    made: str = ""
    more: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def prints(self) -> tuple[tuple[str, str], ...]:
        """All host keys: (type, fingerprint)."""
        return tuple((one.key_type, one.key) for one in (*self.hosts, *self.jumps) if one.key)


# --- the page -----------------------------------------------------------------------------------------------


def page(kit: Kit, *, secrets: bool | None = None) -> str:
    """The text. `secrets`: whether the kit's identity opens the tree's secrets; None: the tree has none."""
    head = [*_words(kit, secrets), "#", *_facts(kit)]
    left = PAGE_LINES - len(head) - 3
    hosts = [_lines(_host(one)) for one in (*kit.jumps, *kit.hosts)]
    shown = 0
    while shown < len(hosts) and sum(map(len, hosts[: shown + 1])) <= left:
        shown += 1
    more = kit.more + len(hosts) - shown
    tail = [f"# more: {more} hosts of the tree are not on this page"] if more else []
    return "\n".join([*head, *(line for lines in hosts[:shown] for line in lines), *tail, "# end", ""])


def _words(kit: Kit, secrets: bool | None) -> Iterator[str]:
    yield f"# RECOVERY KIT of the cluster {kit.name} ({kit.id})"
    yield "#"
    if kit.identity:
        yield "# Who has this page can read every copy of the tree. Print it and lock it away,"
        yield "# or keep it in a password manager: on no host of the cluster, and not in git."
        yield "# Then take what opens the copies off this machine: k4t kit --forget"
    else:
        yield "# This page can't open encrypted copies: what can was taken off the machine that"
        yield "# made it (k4t kit --forget), and is in a kit printed before. Keep both."
    yield "#"
    yield "# If the master is lost: on any machine with k4t and an SSH key that the hosts"
    yield "# accept, put this text, from 'format:' to 'end', into a file kit.txt, and type"
    yield "#"
    yield "#     chmod 600 kit.txt; k4t recover --kit kit.txt --db db"
    yield "#"
    yield "# It asks the hosts below for copies (--from user@host:port names others), takes"
    yield "# no host on trust, touches nothing that serves, and says what to do next."
    if secrets is not None and kit.identity:
        yield "#"
        if secrets:
            yield "# It opens the tree's secrets too: export K4T_IDENTITY=$PWD/kit.txt"
        else:
            yield "# It does NOT open the tree's secrets. To let it, before anything is lost: k4t"
            yield "# secret recipients add RECIPIENT (the one below)"
    yield "#"
    yield "# Typed in, white space and # don't matter; [hex] and fingerprint find slips."


def _facts(kit: Kit) -> Iterator[str]:
    yield f"# format: {FORMAT}"
    yield f"# {_checked('cluster', kit.name, kit.id)}"
    yield f"# made: {kit.made}"
    yield f"# key: {kit.key}"
    yield f"# fingerprint: {fingerprint(kit.key)}"
    yield f"# recipient: {kit.recipient}"
    if kit.identity:
        yield "# identity:"
        yield kit.identity


def _host(one: KitHost) -> list[str]:
    words = [one.name, one.place] if one.name else [one.place]
    words += ["via", one.jump] if one.jump else []
    words += [word for word, said in (("backup", one.backup), ("sudo", one.sudo)) if said]
    words += [one.key_type, one.key] if one.key else []
    return _checked("host" if one.name else "jump", *words).split(" ")


def _lines(words: list[str]) -> list[str]:
    """One line, or two: the host key on one of its own."""
    line = "# " + " ".join(words)
    if len(line) <= 78:
        return [line]
    cut = next((number - 1 for number, word in enumerate(words) if word.startswith(_PRINT)), len(words))
    return ["# " + " ".join(words[:cut]), "#   " + " ".join(words[cut:])] if cut < len(words) else [line]


def _checked(keyword: str, *words: str) -> str:
    return f"{keyword}: {' '.join(words)} [{_check(keyword, words)}]"


def _check(keyword: str, words: Iterable[str]) -> str:
    """Of words as they may be typed: case counts in fingerprints and logins alone."""
    text = "".join(word if _PRINT in word or "@" in word else word.lower() for word in words)
    return hashlib.sha256(f"{keyword}:{text}".encode()).hexdigest()[:6]


# --- reading it ---------------------------------------------------------------------------------------------


@value
class _Record:
    keyword: str
    words: tuple[str, ...]
    line: int


def read(path: Path) -> Kit:
    """Raises K4tError naming file and line."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise K4tError(f"can't read the kit {path}: {error.strerror}", "--kit names the file") from None
    try:
        return parse(data.decode("utf-8", "replace"), str(path))
    except K4tError:
        raise
    except ValueError as error:
        raise K4tError(f"{path} is no recovery kit: {error}", "compare it with the printed page") from None


def parse(text: str, where: str = "kit") -> Kit:
    """Raises K4tError for what can't be used. A host that was mistyped is left out, and named in `damaged`."""
    one: dict[str, _Record] = {}
    hosts: list[KitHost] = []
    jumps: list[KitHost] = []
    damaged: list[str] = []
    for record in _records(text):
        if record.keyword in ("host", "jump"):
            try:
                (hosts if record.keyword == "host" else jumps).append(_read_host(record))
            except ValueError as error:
                damaged.append(f"{where}:{record.line}: {' '.join(record.words[:2])} is left out: {error}")
        else:
            one.setdefault(record.keyword, record)
    if "format" not in one:
        raise K4tError(f"{where} is no recovery kit: it has no line “format: {FORMAT}”", "type the whole page")
    _known_format(one["format"], where)
    name, id = _cluster(_of(one, "cluster", where), where)
    return Kit(
        name, id, key=_key(one, where), recipient="".join(_words_of(one, "recipient")).lower(),
        identity=_identity(one, where), hosts=tuple(hosts), jumps=tuple(jumps),
        made=" ".join(_words_of(one, "made")), more=_number(_words_of(one, "more")), damaged=tuple(damaged),
    )  # fmt: skip


def _records(text: str) -> Iterator[_Record]:
    """From `format:` to `end`."""
    keyword, words, at, begun = "", list[str](), 0, False
    for number, line in enumerate(text.splitlines(), start=1):
        on_line = line.replace("#", " ").split()
        if [word.lower() for word in on_line] == ["end"] and words:  # a host may have that name
            break
        for word in on_line:
            name = word.removesuffix(":").lower()
            if word.endswith(":") and name in _KEYWORDS and (begun or name == "format"):
                if begun:
                    yield _Record(keyword, tuple(words), at)
                keyword, words, at, begun = name, [], number, True
            elif begun:
                words.append(word)
    if begun:
        yield _Record(keyword, tuple(words), at)


def _read_host(record: _Record) -> KitHost:
    words = _verified(_Record(record.keyword, tuple(_mended(record.words)), record.line))
    name = words.pop(0).lower() if record.keyword == "host" and words else ""
    place = _PLACE.fullmatch(words.pop(0)) if words else None
    if place is None or not 0 < int(place["port"]) < 65536:
        raise ValueError("no user@host:port")
    host = KitHost(name, place["user"], place["host"].strip("[]"), int(place["port"]))
    found: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if word.lower() == "via" and words:
            found["jump"] = words.pop(0)
        elif word.lower() in ("backup", "sudo"):
            found[word.lower()] = True
        elif word.upper().startswith(_PRINT):
            found["key"] = _PRINT + word[len(_PRINT) :]
        elif word.upper() in KEY_TYPES:
            found["key_type"] = word.upper()
        else:
            raise ValueError(f"{word[:20]!r} says nothing here")
    if len(str(found.get("key", " " * _PRINT_LENGTH))) != _PRINT_LENGTH:
        raise ValueError(f"a fingerprint has {_PRINT_LENGTH} characters")
    return dataclasses.replace(host, **found)


def _mended(words: Sequence[str]) -> Iterator[str]:
    """A fingerprint that was broken over lines is one word again."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        while word.upper().startswith(_PRINT) and len(word) < _PRINT_LENGTH and rest:
            word += rest.pop(0)
        yield word


def _verified(record: _Record) -> list[str]:
    """Its words without the check; one that was left out is not missed. Raises ValueError."""
    *words, last = record.words or ("",)
    check = _CHECK.fullmatch(last)
    if check is None and not last.startswith("["):
        return list(record.words)
    if check is None or check[1].lower() != _check(record.keyword, words):
        raise ValueError(f"the line does not fit its check {last}: it was mistyped")
    return words


def _known_format(record: _Record, where: str) -> None:
    written = _number(record.words)
    if written != FORMAT:
        raise K4tError(f"{where}: the kit is of format {written or '?'}, this k4t reads {FORMAT}", "update k4t")


def _cluster(record: _Record, where: str) -> tuple[str, str]:
    try:
        name, id = _verified(record)
    except ValueError as error:
        said = str(error) if "check" in str(error) else "the cluster's name and id belong there"
        raise K4tError(f"{where}:{record.line}: {said}", "compare it with the printed page") from None
    return name.lower(), id.lower()


def _key(records: dict[str, _Record], where: str) -> str:
    record = _of(records, "key", where)
    scheme, colon, rest = "".join(record.words).partition(":")
    key = f"{scheme.lower()}{colon}{rest}"
    try:
        wanted = fingerprint(key)
    except ValueError as error:
        raise K4tError(f"{where}:{record.line}: {error}", "compare it with the printed page") from None
    given = "".join(_words_of(records, "fingerprint")).lower()
    if given and given != wanted.replace(" ", ""):
        raise K4tError(
            f"{where}:{record.line}: the key's fingerprint is {wanted}, not the one below it: one of them was mistyped",
            "compare both with the printed page",
        )
    return key


def _identity(records: dict[str, _Record], where: str) -> str:
    """Bech32 has a check of its own, and is upper or lower case."""
    text = "".join(_words_of(records, "identity")).upper()
    if not text:
        return ""
    from k4t.tree.age import parse_identity

    try:
        public = str(parse_identity(text).to_public())
    except ValueError:
        line = records["identity"].line
        raise K4tError(f"{where}:{line}: the identity was mistyped", "compare it with the printed page") from None
    recipient = "".join(_words_of(records, "recipient")).lower()
    if recipient and public != recipient:
        raise K4tError(f"{where}: the identity does not belong to {recipient}", "compare it with the printed page")
    return text


def _of(records: dict[str, _Record], keyword: str, where: str) -> _Record:
    if keyword not in records:
        raise K4tError(f"{where}: the line “{keyword}:” is missing", "type the whole page")
    return records[keyword]


def _words_of(records: dict[str, _Record], keyword: str) -> tuple[str, ...]:
    return records[keyword].words if keyword in records else ()


def _number(words: Sequence[str]) -> int:
    return int(words[0]) if words and words[0].isdecimal() and len(words[0]) < 9 else 0
