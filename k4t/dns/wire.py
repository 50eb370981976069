"""Questions and updates to one DNS server: RFC 1035 section 4.2.2 (TCP), 2136 (updates), 8945 (TSIG).

Everything goes over one TCP connection: no answer is cut, none can be forged from aside, an update may have 64 KiB.
dnspython is known here alone; outside, a name is absolute text without the last dot, a value is text as a zone file has
it (a TXT's strings are joined; they are cut again at 255 bytes, always in the same places).
"""

from __future__ import annotations

import functools
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from k4t.dns.tsig import Key
from k4t.errors import ConnectionLost, K4tError, LoginRefused, ParticipantAway, StepError, VendorRefused

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.rdata
    import dns.rrset
    import dns.update

    from k4t.remote.transport import Stream

MESSAGE_BYTES = 65535
CONNECT_TIMEOUT_S = 4.0
ANSWER_TIMEOUT_S = 8.0
AT_ONCE = 64
"""Questions on their way at the same time: a server that waits for us to read must not wait for ever."""
STRING_BYTES = 255

Name = tuple[str, str]
"""(name, type), as in ("web.k4t.lab", "A")."""


class Raced(Exception):
    """A prerequisite failed: the zone is not what was read. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Records:
    """All records of one name and type."""

    ttl_s: int
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Change:
    """One update message, which the server takes whole or not at all. `put` replaces all records of a name and type;
    `add` and `drop` leave its other values alone. `absent` and `equal` must hold."""

    absent: tuple[Name, ...] = ()
    equal: Mapping[Name, frozenset[str]] = field(default_factory=dict)
    put: Mapping[Name, Records] = field(default_factory=dict)
    remove: tuple[Name, ...] = ()
    add: Mapping[Name, Records] = field(default_factory=dict)
    drop: Mapping[Name, frozenset[str]] = field(default_factory=dict)


class ZoneServer(Protocol):
    """One zone of one server, whatever way it is asked. See Server for what methods mean and raise."""

    host: str
    zone: str

    def ask(self, names: Iterable[Name]) -> dict[Name, Records]: ...
    def update(self, change: Change, *, known: bool = False) -> None: ...
    def size_bytes(self, change: Change) -> int: ...
    def close(self) -> None: ...


class Server:
    """One zone of one server. Connects when it is first asked, and anew when the server has hung up meanwhile.

    `dial` opens the TCP connection. Methods raise ParticipantAway (no answer), LoginRefused (the key, or our address),
    VendorRefused (it says no, and why), ConnectionLost (in doubt).
    """

    def __init__(self, host: str, zone: str, key: Callable[[], Key | None], dial: Callable[[], Stream]) -> None:
        self.host = host
        self.zone = zone
        self._key = key
        self._dial = dial
        self._stream: Stream | None = None
        self._fresh = False
        self._guard = threading.RLock()

    def ask(self, names: Iterable[Name]) -> dict[Name, Records]:
        """What the zone has of each; nothing for what it doesn't have. An alias shows as (name, "CNAME")."""
        listed = list(dict.fromkeys(names))
        found: dict[Name, Records] = {}
        for first in range(0, len(listed), AT_ONCE):
            part = listed[first : first + AT_ONCE]
            for answer in self._exchange([self._question(name) for name in part]):
                self._need_authority(answer)
                for rrset in answer.answer:
                    found[_plain(rrset.name), _type(rrset)] = Records(rrset.ttl, frozenset(map(_text, rrset)))
        return found

    def update(self, change: Change, *, known: bool = False) -> None:
        """`known`: it has taken updates before. Raises Raced, and what all methods raise."""
        import dns.rcode

        (answer,) = self._exchange([self._message(change)])
        code = answer.rcode()
        if code in (dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.YXDOMAIN, dns.rcode.NXDOMAIN):
            raise Raced(dns.rcode.to_text(code))
        if code != dns.rcode.NOERROR:
            raise self._refused_update(known) if code == dns.rcode.REFUSED else self._refusal(dns.rcode.to_text(code))

    def size_bytes(self, change: Change) -> int:
        """Of the message that `update` would send; more than MESSAGE_BYTES when it can't be sent."""
        try:
            return len(self._wire(self._message(change)))
        except VendorRefused:
            return MESSAGE_BYTES + 1

    def close(self) -> None:
        with self._guard:
            stream, self._stream = self._stream, None
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    # --- messages ------------------------------------------------------------------------------------------

    def _question(self, name: Name) -> dns.message.QueryMessage:
        import dns.flags
        import dns.message

        question = dns.message.make_query(_name(name[0]), name[1])
        question.flags &= ~dns.flags.RD
        return question

    def _message(self, change: Change) -> dns.update.UpdateMessage:
        import dns.rdatatype
        import dns.update

        message = dns.update.UpdateMessage(_name(self.zone))
        for name, kind in change.absent:
            message.absent(_name(name), kind)
        for (name, kind), values in change.equal.items():
            message.present(_name(name), *[_rdata(kind, value) for value in sorted(values)])
        for name, kind in (*change.remove, *change.put):
            message.delete(_name(name), kind)
        for (name, kind), values in change.drop.items():
            message.delete(_name(name), *[_rdata(kind, value) for value in sorted(values)])
        for (name, kind), records in (*change.put.items(), *change.add.items()):
            for value in sorted(records.values):
                message.add(_name(name), records.ttl_s, _rdata(kind, value))
        return message

    def _wire(self, message: dns.message.Message) -> bytes:
        import dns.exception

        key = self._key()
        if key is not None:
            message.use_tsig(_keyring(key), keyname=_name(key.name), algorithm=_name(_algorithm(key.algorithm)))
        try:
            return message.to_wire(max_size=MESSAGE_BYTES)
        except dns.exception.TooBig as error:
            raise VendorRefused(f"an update of more than {MESSAGE_BYTES} bytes", host=self.host) from error

    def _need_authority(self, answer: dns.message.Message) -> None:
        import dns.flags
        import dns.rcode

        code = answer.rcode()
        if code == dns.rcode.SERVFAIL:
            words = f"it can't answer for {self.zone} (SERVFAIL): the zone is not loaded"
            raise VendorRefused(words, "its log says why; it may just be starting", host=self.host)
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise self._refusal(dns.rcode.to_text(code))
        if not answer.flags & dns.flags.AA:
            name = _plain(answer.question[0].name) if answer.question else self.zone
            raise VendorRefused(
                f"it is not authoritative for {name}",
                f"is zone {self.zone} loaded there, and {name} in no zone of its own?",
                host=self.host,
            )

    @property
    def _by(self) -> str:
        key = self._key()
        return f"key {key.name}" if key else "this address (no key)"

    def _refused_update(self, known: bool) -> LoginRefused:
        """BIND has one code for two reasons, and tells them apart in its log alone."""
        allow = f"its allow-update or update-policy must name {self._by}"
        if not known:
            return LoginRefused(f"it refuses updates of {self.zone} by {self._by}", allow, host=self.host)
        words = (
            f"it refuses updates of {self.zone} now, and took them before: the zone is frozen, or the rights changed"
        )
        return LoginRefused(words, f"rndc thaw {self.zone} there; or {allow}", host=self.host)

    def _refusal(self, code: str) -> K4tError:
        """What a response code means here (RFC 1035 section 4.1.1, RFC 2136 section 2.2)."""
        zone = self.zone
        if code == "REFUSED":
            said = f"it refuses questions about {zone} by {self._by}"
            return LoginRefused(said, f"is the zone there, and does allow-query name {self._by}?", host=self.host)
        words = {
            "NOTAUTH": (f"it is not the primary server of {zone}", "send updates to the primary; is the zone loaded?"),
            "NOTZONE": (f"a name is outside of {zone}", "correct the zone of <dns>"),
            "SERVFAIL": (
                f"it could not carry that out in {zone} (SERVFAIL)",
                "its log says why: a journal that can't be written, a full disk, too many records of a name",
            ),
            "NOTIMP": ("it knows no updates (RFC 2136)", "use a server that does, or another driver"),
        }.get(code, (f"it answers {code} for {zone}", "see its log"))
        return VendorRefused(*words, host=self.host)

    # --- the connection ------------------------------------------------------------------------------------

    def _exchange(self, messages: Sequence[dns.message.Message]) -> list[dns.message.Message]:
        """Answers in the order of the questions, whatever order they come in."""
        first = secrets.randbelow(65536)
        for place, message in enumerate(messages):
            message.id = (
                first + place
            ) % 65536  # each its own: by chance alone two of 64 would be the same now and then
        with self._guard:
            wires = [self._wire(message) for message in messages]
            try:
                received = self._ask_all(wires)
            except (OSError, EOFError, ConnectionLost) as error:
                fresh = self._fresh
                self.close()
                if fresh or isinstance(error, TimeoutError):
                    raise ConnectionLost(f"no DNS answer: {_words(error)}", host=self.host) from error
                try:  # it had been idle for long, and the server hung up: nothing of this was read by it
                    received = self._ask_all(wires)
                except (OSError, EOFError) as again:
                    self.close()
                    raise ConnectionLost(f"no DNS answer: {_words(again)}", host=self.host) from again
            except BaseException:
                self.close()
                raise
            return [self._parse(received[message.id], message) for message in messages]

    def _ask_all(self, wires: Sequence[bytes]) -> dict[int, bytes]:
        stream = self._connected()
        stream.settimeout(ANSWER_TIMEOUT_S)
        stream.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))
        wanted = {struct.unpack("!H", wire[:2])[0] for wire in wires}
        received: dict[int, bytes] = {}
        while wanted - set(received):
            (size,) = struct.unpack("!H", _read(stream, 2))
            answer = _read(stream, size)
            if size >= 12:
                received[struct.unpack("!H", answer[:2])[0]] = answer
            self._fresh = False
        return received

    def _connected(self) -> Stream:
        if self._stream is None:
            try:
                self._stream = self._dial()
            except (OSError, StepError) as error:  # refused here, or to the host that connects for us
                raise ParticipantAway(
                    f"no DNS answer over TCP: {_words(error)}", "is it running, and is TCP let through?", host=self.host
                ) from error
            self._fresh = True
        return self._stream

    def _parse(self, wire: bytes, asked: dns.message.Message) -> dns.message.Message:
        """Raises LoginRefused for whatever is wrong with signatures."""
        import dns.exception
        import dns.message
        import dns.tsig

        key = self._key()
        try:
            answer = dns.message.from_wire(wire, keyring=asked.keyring or False, request_mac=asked.mac)
        except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadTime, dns.tsig.BadKey) as error:
            self.close()
            raise self._bad_key(error) from None
        except dns.exception.DNSException as error:
            self.close()
            raise StepError(f"can't read its DNS answer: {error}", host=self.host) from error
        if key is not None and not answer.had_tsig and answer.rcode() == 0:
            raise LoginRefused("its answer is not signed", f"is it asked for key {key.name} at all?", host=self.host)
        return answer

    def _bad_key(self, error: Exception) -> LoginRefused:
        key = self._key()
        name = key.name if key else ""
        said = {
            "PeerBadKey": (f"it doesn't know TSIG key {name} (BADKEY)", "correct key-name, or give it that key"),
            "PeerBadSignature": (f"TSIG key {name} has another secret there (BADSIG)", "store the right secret"),
            "PeerBadTime": (
                "its clock and this one differ by more than 5 minutes (BADTIME)",
                "set the clocks right: signatures carry the time",
            ),
        }.get(type(error).__name__, (f"its signature is wrong: {error}", "somebody else may have answered"))
        return LoginRefused(*said, host=self.host)


def dial(address: str, port: int) -> Stream:
    """A TCP connection from here."""
    connection = socket.create_connection((address, port), CONNECT_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read(stream: Stream, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = stream.recv(size)
        if not part:
            raise EOFError("it hung up")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _words(error: Exception) -> str:
    if isinstance(error, K4tError):
        return error.message
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error)


# --- values ------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=10_000)
def _name(text: str) -> dns.name.Name:
    import dns.name

    return dns.name.from_text(text.rstrip(".") + ".")


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _type(rrset: dns.rrset.RRset) -> str:
    import dns.rdatatype

    return dns.rdatatype.to_text(rrset.rdtype)


def _rdata(kind: str, value: str) -> dns.rdata.Rdata:
    import dns.rdata

    if kind == "TXT":
        import dns.rdataclass
        import dns.rdatatype
        from dns.rdtypes.ANY.TXT import TXT

        data = value.encode()
        strings = [data[place : place + STRING_BYTES] for place in range(0, len(data), STRING_BYTES)] or [b""]
        return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
    return dns.rdata.from_text("IN", kind, value)


def _text(rdata: Any) -> str:
    strings = getattr(rdata, "strings", None)
    if strings is not None:
        return b"".join(strings).decode("utf-8", "replace")
    text: str = rdata.to_text()
    return text.lower()


def _algorithm(name: str) -> str:
    return "hmac-md5.sig-alg.reg.int" if name == "hmac-md5" else name


def _keyring(key: Key) -> dict[Any, Any]:
    import dns.tsig

    return {_name(key.name): dns.tsig.Key(_name(key.name), key.secret, _name(_algorithm(key.algorithm)))}
