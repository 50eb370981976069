"""The client of the registrar: builds its zipapp, starts it on a host, asks it line by line.

One process of it serves a whole run: starting Python costs 55 ms, a question on an open channel 3. Whether the zipapp
is there and unaltered is checked by the same command that starts it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from k4t import errors
from k4t.errors import ConnectionLost, K4tError, ParticipantAway, RegistrarMismatch, StepError
from k4t.model.participant import Capabilities, Kind
from k4t.model.state import Head, ParticipantState, Withdrawn
from k4t.model.value import value
from k4t.registrar import protocol
from k4t.registrar.document import BadDocument, Certificate, Document, Endpoint, Epoch, from_json, to_json

if TYPE_CHECKING:
    from k4t.remote.transport import Process, Transport

BIN = "/var/lib/k4t/registrar/bin"
ANSWER_TIMEOUT_S = 60.0
HEAD_FILE = "head"
LONG_AGO = (1980, 1, 1, 0, 0, 0)

MISSING, ALTERED, NO_PYTHON, OLD_PYTHON, OTHER = 90, 91, 92, 93, 94
START = f"""\
[ -f "$1" ] || {{ for other in "${{1%-*}}"-*.pyz; do [ ! -f "$other" ] || exit {OTHER}; done; exit {MISSING}; }}
echo "$2  $1" | sha256sum -c - >/dev/null 2>&1 || exit {ALTERED}
command -v python3 >/dev/null 2>&1 || exit {NO_PYTHON}
exec python3 -IS "$1" --driver "$3" rpc
"""
FIRST = f"""\
import sys
if sys.version_info < (3, 8):
    sys.stderr.write("k4t-registrar needs Python 3.8 or newer; python3 is %d.%d here\\n" % sys.version_info[:2])
    sys.exit({OLD_PYTHON})
from k4t.registrar.__main__ import main
sys.exit(main())
"""

ERRORS: Mapping[str, tuple[type[StepError | ParticipantAway], str]] = {
    "overtaken": (errors.Overtaken, "another run went on from here; run k4t plan to see what is"),
    "not-prepared": (errors.NotPrepared, "run again: it is published anew"),
    "clash": (StepError, "change it here, or ask its owner to let go of it"),
    "vendor-refused": (errors.VendorRefused, ""),
    "vendor-silent": (ParticipantAway, ""),
    "newer": (RegistrarMismatch, "use the newer k4t, whose registrar wrote it: k4t {kind} install {name}"),
    "not-installed": (RegistrarMismatch, "k4t {kind} install {name}"),
    "damaged": (StepError, "put the file right, or remove it and publish again"),
    "full": (errors.HostFull, "make room there"),
    "denied": (StepError, 'log in as root there, or set <ssh sudo="true"/>'),
    "busy": (StepError, "try again"),
}


@functools.cache
def build() -> tuple[bytes, str]:
    """The zipapp and its sha256: the same bytes for the same source, whatever the time and the machine."""
    import zipfile

    sources = {path.name: path.read_bytes() for path in sorted(_package().glob("*.py"))}
    content = {f"k4t/registrar/{name}": source for name, source in sources.items()}
    content |= {"__main__.py": FIRST.encode(), "k4t/__init__.py": b""}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            info = zipfile.ZipInfo(name, LONG_AGO)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content[name])
    data = target.getvalue()
    return data, hashlib.sha256(data).hexdigest()


def _package() -> Path:
    from k4t.registrar import document

    return Path(document.__file__).parent


def source(name: str) -> str:
    """The text of one file of the registrar, to be run by itself."""
    return (_package() / name).read_text()


def zipapp_path(sha256: str) -> str:
    return f"{BIN}/k4t-registrar-{sha256[:12]}.pyz"


Place = tuple[str, str, int]
"""App, address and port of an endpoint."""


@value
class Several:
    """What became of endpoints that were withdrawn or given back. `changed`: how many; `left`: what could not be done;
    `problem`: why the vendor would not take it; `pending`: what it has not done yet. Sentences."""

    changed: int
    left: tuple[str, ...] = ()
    problem: str = ""
    pending: str = ""


def several_of(answer: Mapping[str, Any]) -> Several:
    left = tuple(str(one) for one in answer["left"])
    return Several(int(answer["changed"]), left, str(answer["problem"]), str(answer["pending"]))


def refusal(kind: str, message: str, host: str, remedy_of: Mapping[str, str]) -> K4tError:
    """The error that a registrar's answer stands for. `remedy_of`: the kind and name of the member."""
    error, remedy = ERRORS.get(kind, (StepError, ""))
    return error(message, remedy.format(**remedy_of), host=host)


class RegistrarClient:
    """Asks one driver's registrar over one connection. Many threads may ask; one question is under way at a time."""

    def __init__(self, transport: Transport, driver: str, *, kind: Kind, name: str) -> None:
        self._transport = transport
        self._driver = driver
        self._kind = kind
        self._name = name
        self._process: Process | None = None
        self._guard = threading.Lock()
        self.answer_timeout_s = ANSWER_TIMEOUT_S

    def call(self, op: str, **request: Any) -> dict[str, Any]:
        """One operation. Raises RegistrarMismatch, Overtaken, VendorRefused, HostFull, StepError, ParticipantAway,
        ConnectionLost (in doubt: every operation can be done twice)."""
        line = json.dumps({"op": op, **request}, separators=(",", ":")).encode() + b"\n"
        with self._guard:
            answer = json.loads(self._ask(line))
        if "error" in answer:
            raise self._error(answer["error"]["type"], answer["error"]["message"])
        result: dict[str, Any] = answer["ok"]
        return result

    def begin(self) -> None:
        """Start the process and don't wait for it: Python takes a moment. Raises as starting a command does."""
        with self._guard:
            self._running()

    def close(self) -> None:
        with self._guard:
            self._end()

    def _ask(self, line: bytes) -> bytes:
        fresh = self._process is None
        try:
            answer = self._exchange(line)
            if not answer and not fresh:  # it had been idle for long, and ended
                self._end()
                answer = self._exchange(line)
            silent = None if answer else self._silent()
        except BaseException:
            self._end()
            raise
        if silent is not None:
            self._end()
            raise silent
        return answer

    def _exchange(self, line: bytes) -> bytes:
        process = self._running()
        try:
            process.write(line)
        except ConnectionLost:
            if not self._transport.alive:
                raise  # else the process ended before it read: its exit status says why
        return process.read_line(self.answer_timeout_s)

    def _running(self) -> Process:
        if self._process is None:
            sha256 = build()[1]
            argv = ["sh", "-c", START, "k4t-registrar", zipapp_path(sha256), sha256, self._driver]
            self._process = self._transport.start(argv)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _silent(self) -> K4tError:
        """Why there was no answer: the exit status of START says."""
        process = self._process
        if process is None:
            return ConnectionLost("the registrar ended", host=self._transport.host)
        done = process.wait(5.0)
        sha256 = build()[1]
        path = zipapp_path(sha256)
        install = f"k4t {self._kind} install {self._name}"
        mismatch = {
            MISSING: (f"the registrar is not installed ({path})", install),
            OTHER: (f"the registrar there is of another version of k4t ({path} is missing)", install),
            ALTERED: (f"the registrar was altered: {path} hasn't the checksum {sha256[:12]}…", install),
            NO_PYTHON: ("python3 is not installed", "install python3 (3.8 or newer) there"),
            OLD_PYTHON: (done.words(), "install python3 (3.8 or newer) there"),
        }.get(done.exit_status or 0)
        if mismatch is not None:
            return RegistrarMismatch(*mismatch, host=self._transport.host)
        if done.exit_status is None:
            return ConnectionLost("the registrar's answer was lost: in doubt", host=self._transport.host)
        return StepError(f"the registrar ended without an answer: {done.words()}", host=self._transport.host)

    def _error(self, kind: str, message: str) -> K4tError:
        return refusal(kind, message, self._transport.host, {"kind": self._kind, "name": self._name})


Pairs = Callable[[Certificate], tuple[str, str]]
"""The PEM texts of a certificate's chain and key, asked for when a host lacks them. Raises K4tError."""


class RegistrarParticipant:
    """A Participant whose host runs the registrar. Connects when it is first asked. See k4t.model.participant.

    `certificates` is set by whoever has the tree; without it none can be uploaded.
    """

    kind: Kind
    driver: str
    registrar: str = ""
    """The registrar's name of the driver, where it has two (one for gateways, one for DNS servers)."""
    capabilities: Capabilities
    answer_timeout_s: float = ANSWER_TIMEOUT_S

    def __init__(self, name: str, group: str, cluster: str, connect: Callable[[], Transport], zone: str = "") -> None:
        self.name = name
        self.group = group
        self._cluster = cluster
        self._connect = connect
        self._zone = zone
        self._client: RegistrarClient | None = None
        self._seen = ""
        self._pending = ""
        self._staged: dict[str, str] = {}
        self._guard = threading.Lock()
        self.certificates: Pairs | None = None

    def connect_ahead(self) -> None:
        """Connect, and start the registrar, without waiting for it. How that went is told when it is asked."""
        with suppress(K4tError):
            self._asked().begin()

    def observe(self) -> ParticipantState:
        try:
            return self._state(self._call("observe", head=HEAD_FILE))
        except K4tError as error:
            return self._blind(str(error), error.exit_status)
        except BadDocument as error:
            return self._blind(f"{self.name} holds a document that this k4t can't read: {error}", 1)

    def fence(self, epoch: Epoch) -> None:
        self._call("fence", epoch=[epoch.number, epoch.run])

    def prepare(self, transaction: str, document: Document) -> None:
        self._upload(document)
        self._call(
            "prepare", transaction=transaction, document=to_json(document), sha256=document.sha256,
            seen=self._seen, zone=self._zone,
        )  # fmt: skip
        self._staged[transaction] = document.sha256

    def _upload(self, document: Document) -> None:
        """Certificates that the host lacks, with their keys. Raises as `certificates` does."""
        wanted = {one.sha256: one for one in document.certificates if one.sha256}
        if not wanted:
            return
        for sha256 in self._call("certificates", want=sorted(wanted))["missing"]:
            name = wanted[sha256].name
            chain, key = self.certificates(wanted[sha256]) if self.certificates else ("", "")
            try:
                self._call("certificates", put=[{"sha256": sha256, "chain": chain, "key": key}])
            except StepError as error:
                remedy = error.remedy or f"look at certificates/{name}.xml: is it the right key?"
                raise type(error)(f"certificate {name}: {error.message}", remedy, host=error.host) from None

    def commit(self, transaction: str) -> bool:
        epoch = protocol.epoch_of(transaction)  # another run's, when it is rolled forward
        answer = self._call("commit", transaction=transaction, epoch=[epoch.number, epoch.run])
        self._seen = self._staged.pop(transaction, self._seen)
        self._pending = str(answer["pending"])
        return bool(answer["rendered"])

    def abort(self, transaction: str) -> None:
        self._call("abort", transaction=transaction)
        self._staged.pop(transaction, None)

    def verify(self, document: Document) -> tuple[str, ...]:
        found = tuple(self._call("verify", sha256=document.sha256)["differences"])
        pending, self._pending = self._pending, ""
        return found if not pending or pending in found else (pending, *found)

    def several(self, verb: Literal["withdraw", "restore"], places: Sequence[Place], by: str, why: str) -> Several:
        """Take published endpoints out at once, or give back what `by` took out. Can be done twice."""
        entries = [{"cname": app, "ip": ip, "port": port} for app, ip, port in places]
        return several_of(self._call("several", verb=verb, entries=entries, by=by, why=why))

    def counters(self, apps: Sequence[str]) -> dict[tuple[str, str], int]:
        """By (app, ip:port): how many requests were ever sent to this cluster's endpoints. Numbers begin anew when the
        vendor's process does. Raises as the others, and StepError where the driver doesn't count."""
        answer = self._call("counters", apps=sorted(apps))
        return {(str(app), str(place)): int(number) for app, place, number in answer["counters"]}

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _call(self, op: str, **request: Any) -> dict[str, Any]:
        return self._asked().call(op, cluster=self._cluster, **request)

    def _asked(self) -> RegistrarClient:
        with self._guard:
            if self._client is None:
                driver = self.registrar or self.driver
                self._client = RegistrarClient(self._connect(), driver, kind=self.kind, name=self.name)
                self._client.answer_timeout_s = self.answer_timeout_s
            return self._client

    def _state(self, answer: Mapping[str, Any]) -> ParticipantState:
        document = from_json(answer["document"]) if answer["document"] is not None else None
        self._seen = document.sha256 if document else ""
        text = answer.get("head")
        return ParticipantState(
            self.kind,
            self.name,
            self.group,
            self.driver,
            reachable=True,
            epoch=Epoch(*answer["epoch"]),
            document=document,
            digest=document.digest if document else "",
            rendered=answer["rendered"],
            others=tuple(from_json(other) for other in answer["others"]),
            differences=tuple(answer["differences"]),
            head=_head(text) if text else None,
            problem=answer["problem"],
            id=answer["id"],
            ancestors=tuple((seq, sha256) for seq, sha256 in answer["ancestors"]),
            staged=answer["staged"],
            manual=tuple(Endpoint(**entry) for entry in answer["manual"]),
            withdrawn=tuple(Withdrawn(**out) for out in answer["withdrawals"]),
        )

    def _blind(self, problem: str, exit_status: int) -> ParticipantState:
        return ParticipantState(
            self.kind, self.name, self.group, self.driver, reachable=False, problem=problem, exit_status=exit_status
        )


def _head(text: str) -> Head | None:
    from k4t.remote import head

    return head.parse(text.encode())
