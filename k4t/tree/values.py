"""The types of values in the tree: how each is written, read, described, and put into an XSD.

A type's `parse` takes the text as it stands and answers the value the model holds (seconds, bytes, tuples …). It
raises ValueError: with words of its own when it knows better than `phrase` what is wrong, else with none.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from k4t.model.shared import Share

NAME_MAX = 40
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_\-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LOGIN_HOST = rf"([A-Za-z0-9_][A-Za-z0-9_.\-]*@)?({_DOMAIN}|[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\])(:([0-9]{{1,5}}))?"
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_BYTES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE_BYTES |= {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SEPARATORS = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Type:
    """`phrase` completes “… is not ”, `example` “write ”; `pattern` is an XSD pattern, "" for any text."""

    phrase: str
    example: str
    parse: Callable[[str], object]
    pattern: str = ""
    choices: tuple[str, ...] = ()


def _matching(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError
        return text

    return parse


def like(phrase: str, example: str, pattern: str) -> Type:
    return Type(phrase, example, _matching(pattern), pattern)


def choice(*choices: str) -> Type:
    known = frozenset(choices)

    def parse(text: str) -> str:
        if text not in known:
            raise ValueError
        return text

    return Type(f"one of {', '.join(choices)}", choices[0], parse, choices=choices)


def whole(low: int = 0, high: int = 2**31 - 1, example: str = "") -> Type:
    phrase = f"a whole number from {low}" + (f" to {high}" if high < 2**31 - 1 else "")

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return Type(phrase, example or str(max(low, 1)), parse, r"[0-9]{1,10}")


def either(first: Type, word: str, phrase: str) -> Type:
    """A type, or one word that stands for itself."""

    def parse(text: str) -> object:
        return text if text == word else first.parse(text)

    return Type(phrase, first.example, parse, f"({first.pattern})|{word}")


def many(item: Type, phrase: str, example: str) -> Type:
    """A list of `item`, separated by white space and/or commas."""

    def parse(text: str) -> tuple[object, ...]:
        words = [word for word in _SEPARATORS.split(text) if word]
        if not words:
            raise ValueError
        for word in words:
            try:
                item.parse(word)
            except ValueError as error:
                raise ValueError(str(error) or f"{word!r} is not {item.phrase}") from None
        return tuple(words)

    return Type(phrase, example, parse)


def _text(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _name(text: str) -> str:
    if len(text) > NAME_MAX:
        raise ValueError(f"has {len(text)} characters; at most {NAME_MAX} are allowed")
    if not NAME.fullmatch(text):
        raise ValueError
    return text


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _duration(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
    if not found:
        if text == "0":
            return 0.0
        raise ValueError
    number, unit = int(found[1]), found[2]
    return number / 1000 if unit == "ms" else number * _DURATION_S[unit]


def _period(text: str) -> float:
    if not (seconds := _duration(text)):
        raise ValueError("must be longer than nothing")
    return seconds


def _whole_seconds(text: str) -> int:
    seconds = _duration(text)
    if seconds != int(seconds) or not 0 <= seconds <= 2**31 - 1:
        raise ValueError
    return int(seconds)


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15})([A-Za-z]{0,3})", text)
    if not found or found[2] not in _SIZE_BYTES or int(found[1]) * _SIZE_BYTES[found[2]] >= 2**63:
        raise ValueError
    return int(found[1]) * _SIZE_BYTES[found[2]]


def _some_size(text: str) -> int:
    if not (size_bytes := _size(text)):
        raise ValueError("must be more than nothing")
    return size_bytes


def _decimal(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not float(text):
        raise ValueError
    return float(text)


def _percent(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", text) or float(text[:-1]) > 100:
        raise ValueError
    return float(text[:-1])


def _share(text: str) -> Share:
    if text.endswith("%"):
        return Share(percent=_percent(text))
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError
    return Share(int(text))


def _address(text: str) -> str:
    if "%" in text:
        raise ValueError
    return str(ipaddress.ip_address(text))


def _quiet(parse: Callable[[str], object]) -> Callable[[str], object]:
    """ipaddress's own words are for programmers; ours say what to write."""

    def quiet(text: str) -> object:
        try:
            return parse(text)
        except ValueError:
            raise ValueError from None

    return quiet


def _addresses(text: str) -> tuple[str, str]:
    """(v4 or, without one, v6; v6 when both are given)"""
    found = [_address(word) for word in _SEPARATORS.split(text) if word]
    v4, v6 = [a for a in found if ":" not in a], [a for a in found if ":" in a]
    if not found or len(v4) > 1 or len(v6) > 1:
        raise ValueError
    return (v4[0], v6[0] if v6 else "") if v4 else (v6[0], "")


def _targets(text: str) -> tuple[str, ...]:
    if text in ("endpoints", "addresses"):
        return () if text == "endpoints" else (text,)
    return tuple(_address(word) for word in _SEPARATORS.split(text) if word)


def _subnet(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _address_range(text: str) -> tuple[str, str]:
    first, dash, last = text.partition("-")
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last if dash else first)
    if low.version != high.version or int(low) > int(high):
        raise ValueError
    return str(low), str(high)


def _port_range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]) <= 65535:
        raise ValueError
    return int(found[1]), int(found[2])


def _status(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?", text)
    if not found or int(found[1]) > int(found[2] or found[1]):
        raise ValueError
    return int(found[1]), int(found[2] or found[1])


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError
    return int(text, 8)


def _relative(text: str) -> str:
    if text.startswith("/") or "\\" in text or "//" in text or {"", ".", ".."} & set(text.split("/")):
        raise ValueError
    return text


def _volume_source(text: str) -> tuple[str, str | int]:
    """("path", …), ("name", …) or ("tmpfs", bytes)"""
    if text.startswith("tmpfs:"):
        return "tmpfs", _some_size(text[6:])
    if text.startswith("/"):
        return "path", text
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", text):
        raise ValueError
    return "name", text


_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def _cron(text: str) -> str:
    fields = text.split(" ")
    if len(fields) != 5 or not all(_cron_field(f, *r) for f, r in zip(fields, _CRON_RANGES, strict=True)):
        raise ValueError
    return text


def _login_host(text: str) -> str:
    found = re.fullmatch(_LOGIN_HOST, text)
    if not found or not 1 <= int(found.groups()[-1] or 22) <= 65535:
        raise ValueError
    return text


def _cron_field(text: str, low: int, high: int) -> bool:
    for part in text.split(","):
        found = re.fullmatch(r"(?:\*|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([0-9]{1,2}))?", part)
        if not found or found[3] in ("0", "00"):
            return False
        first = int(found[1]) if found[1] else low
        if not low <= first <= int(found[2] or first) <= high:
            return False
    return True


def _words(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"can't be split into words: {error}") from None
    return text if words else _text("")


def _mac_or_words(text: str) -> str:
    if not text.startswith("wol "):
        return _words(text)
    mac, _, broadcast = text.removeprefix("wol ").partition(" ")
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", mac):
        raise ValueError("“wol” wants one MAC address, as in wol 52:54:00:12:34:56")
    if broadcast or text.endswith(" "):
        try:
            ipaddress.IPv4Address(broadcast)
        except ValueError:
            raise ValueError("a broadcast address such as 10.0.0.255 may follow the MAC address") from None
    return text


TEXT = Type("any text", "text", _text)
FREE = Type("any text, also none", "text", str)
BOOLEAN = Type("true or false", "true", _boolean, choices=("true", "false"))
NAMED = Type("a name of a-z, 0-9 and - (not at an end)", "web-1", _name, NAME.pattern.replace("?:", "") + "")
COUNT = whole(0, example="3")
POSITIVE = whole(1, example="3")
PORT = whole(1, 65535, "8080")
PORT_OR_NONE = whole(0, 65535, "80")
PORT_OR_AUTO = either(PORT, "auto", "auto, or a port from 1 to 65535")
REPLICAS = either(COUNT, "per-node", "a whole number from 0, or per-node")
DURATION = Type("a duration such as 500ms, 10s, 2m, 12h or 7d", "10s", _duration, r"0|[0-9]{1,9}(ms|s|m|h|d)")
PERIOD = Type(DURATION.phrase, "10s", _period, DURATION.pattern)
SECONDS = Type("a duration of whole seconds such as 30s or 5m", "30s", _whole_seconds, DURATION.pattern)
SIZE = Type("a size such as 512KiB, 256MiB or 4GiB", "256MiB", _size, r"[0-9]{1,15}([KMGT]iB|[kMGT]?B)?")
SOME_SIZE = Type(SIZE.phrase, "256MiB", _some_size, SIZE.pattern)
DECIMAL = Type("a number above 0 such as 0.5 or 4", "0.5", _decimal, r"[0-9]{1,9}(\.[0-9]{1,6})?")
PERCENT = Type("a share from 0% to 100%", "30%", _percent, r"[0-9]{1,3}(\.[0-9]{1,3})?%")
SHARE = Type("a whole number or a share such as 25%", "1", _share, r"[0-9]{1,6}|[0-9]{1,3}(\.[0-9]{1,3})?%")
ADDRESS = Type("an IP address", "10.0.0.1", _quiet(_address), r"[0-9A-Fa-f:.]+")
ADDRESSES = Type("one IPv4 and/or one IPv6 address", "10.0.0.1", _quiet(_addresses), r"[0-9A-Fa-f:.,\s]+")
TARGETS = Type("endpoints, addresses or a list of IP addresses", "endpoints", _quiet(_targets))
SUBNET = Type("a network with its prefix length", "10.0.0.0/24", _quiet(_subnet), r"[0-9A-Fa-f:.]+/[0-9]+")
ADDRESS_RANGE = Type(
    "a range of addresses", "10.0.0.100-10.0.0.119", _quiet(_address_range), r"[0-9A-Fa-f:.]+(-[0-9A-Fa-f:.]+)?"
)
PORT_RANGE = Type("a range of ports from 1 to 65535", "20000-29999", _port_range, r"[0-9]{1,5}-[0-9]{1,5}")
STATUS = Type("an HTTP status or a range of them", "200-399", _status, r"[1-5][0-9][0-9](-[1-5][0-9][0-9])?")
MODE = Type("a file mode in octal", "0444", _mode, r"0?[0-7]{3}")
HOST = like("a host name or address", "node1.example.com", rf"{_DOMAIN}|[0-9A-Fa-f:.]+")
LOGIN_HOST = Type("[user@]host[:port]", "copies@backup.example.com", _login_host, _LOGIN_HOST)
REGISTRY = like(
    "a registry's host, with its port where it has one", "registry.example.com:5000", rf"{_DOMAIN}(:[0-9]{{1,5}})?"
)
DOMAIN = like("a domain name", "k4t.example.com", _DOMAIN)
DOMAINS = many(DOMAIN, "a list of domain names", "0.10.in-addr.arpa")
ROUTE_DOMAINS = many(
    like("a domain name, or one that begins with *.", "www.example.com", rf"(\*\.)?{_DOMAIN}"),
    "a list of domain names, each perhaps beginning with *.",
    "www.example.com",
)
SEARCH = many(DOMAIN, "a list of domain names", "example.com")
RESOLVERS = many(ADDRESS, "a list of IP addresses", "10.0.0.53")
CAPABILITIES = many(like("a capability", "NET_ADMIN", r"[A-Z][A-Z_]*"), "a list of capabilities", "NET_BIND_SERVICE")
PREFIX = like("a path that begins with /", "/", r"/[^\s?#]*")
_URL_PATH = r"/[A-Za-z0-9._~!$&'()*+,;=:@%/\-]*"
ROUTE_PREFIX = like("a path that begins with /", "/", _URL_PATH)
REDIRECT = like(
    "https, a path that begins with /, or an http or https address",
    "https",
    r"https|(https?://[A-Za-z0-9.:_\-]+)?/[A-Za-z0-9._~!&()*+,;=:@%/?#\-]*|https?://[A-Za-z0-9.:_\-]+",
)
ABSOLUTE = like("an absolute path", "/etc/app.conf", r"/.*")
RELATIVE = Type(
    "the name of a file of the tree, without .. or a leading /", "app.conf", _relative, r"[^/\\]+(/[^/\\]+)*"
)
USER = like("a user, or user:group", "1000:1000", r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(:[A-Za-z0-9_][A-Za-z0-9_.\-]*)?")
LOGIN = like("a login name", "deploy", r"[A-Za-z0-9_][A-Za-z0-9_.\-\\@]*")
JUMP = like("[user@]host[:port]", "ops@bastion:22", rf"([^@\s,]+@)?({_DOMAIN}|\[[0-9a-fA-F:]+\])(:[0-9]{{1,5}})?(,.+)?")
KEY = like("a name of letters, digits and . _ - /", "zone", r"[A-Za-z0-9]([A-Za-z0-9._/\-]*[A-Za-z0-9])?")
LABEL_TEXT = like("a text without line breaks", "a", r"[^\n\r]*")
ENV_NAME = like("a variable's name", "LOG_LEVEL", r"[A-Za-z_][A-Za-z0-9_.\-]*")
VARIABLE_NAME = like("a variable's name", "domain", r"[A-Za-z_][A-Za-z0-9_\-]*")
IMAGE = like("an image reference", "registry.example.com/web:1.4", r"[A-Za-z0-9]([A-Za-z0-9._\-/:@]*[A-Za-z0-9._\-])?")
SIGNAL = like("a signal", "SIGTERM", r"SIG[A-Z0-9+\-]+|[0-9]{1,2}")
ON_CHANGE = like("replace, restart or a signal", "replace", r"replace|restart|SIG[A-Z0-9]+")
HEADER = like("a header's name", "Host", r"[A-Za-z0-9!#$%&'*+.^_`|~\-]+")
HEADER_TEXT = like("a header's value on one line", "example.com", r"[^\n\r]*")
VOLUME_SOURCE = Type("a path, a volume's name or tmpfs:SIZE", "/srv/data", _volume_source)
GPUS = like("all, a number, or a list of device ids", "all", r"all|[0-9]{1,3}|[A-Za-z0-9,_\-]+")
CRON = Type("a schedule of five fields", "30 3 * * *", _cron)
TIMEZONE = like("a time zone", "Europe/Berlin", r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*")
COMMAND = Type("a command", "pass show k4t", _words)
POWER_COMMAND = Type("a command, or wol MAC [BROADCAST]", "virsh start node1", _mac_or_words)
PUBLIC_KEY = like("a public key such as ed25519:…", "ed25519:" + "A" * 43 + "=", r"ed25519:[A-Za-z0-9+/]{43}=")
RECIPIENT = like(
    "an age1… key, or an ssh-ed25519 or ssh-rsa public key",
    "age1…",
    r"age1[a-z0-9]{20,4000}|ssh-(ed25519|rsa) [A-Za-z0-9+/]{20,4000}={0,2}",
)
SEALED = like("base64 of an age file", "YWdlLWVuY3J5cHRpb24…", r"[A-Za-z0-9+/]{40,65536}={0,2}")
CLUSTER_ID = like("4 to 40 characters of a-z, 0-9 and -", "k7f3q2m9", r"[a-z0-9][a-z0-9-]{2,38}[a-z0-9]")
FORMAT = choice("1")
RECORD_NAME = like(
    "a DNS name of a-z, 0-9, _ and -", "web", r"[a-z0-9_]([a-z0-9_\-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_\-]*[a-z0-9_])?)*"
)
INTERFACE = like("a network interface", "eth0", r"[A-Za-z0-9_.\-]{1,15}")
URL = like("an http or https address", "https://example.com/hook", r"https?://\S+")
EMAIL = like("an e-mail address", "ops@example.com", r"[^@\s]+@[^@\s]+")
