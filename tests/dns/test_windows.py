"""Driver windows against a recorded stand-in: what k4t asks for, in which order, and what it makes of the answers."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from k4t import wiring
from k4t.command import Completed
from k4t.dns import powershell
from k4t.dns.windows import Windows, install
from k4t.errors import LoginRefused, Overtaken, StepError, VendorRefused
from k4t.master.fleet import hosts_of
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Dns
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document, Endpoint, Epoch, Record, make
from k4t.remote.fake import FakeTransport
from k4t.tree.read import read_tree
from tests.dns import fake_powershell

pytestmark = pytest.mark.unit
HERE = Path(__file__).parent
PROD, OTHER = Cluster("prod", "k7f3q2m9"), Cluster("other", "z9z9z9z9")
REVERSE = "0.0.10.in-addr.arpa"
WEB = Record("web", "web")
IPS = ("10.0.0.2", "10.0.0.3")
SRV = Record("_http._tcp.web", "web", "srv", "main", ttl_s=7)


@dataclasses.dataclass
class Server:
    """A Windows DNS server in a directory, and whoever publishes to it. `runs` counts them."""

    directory: Path
    runs: int = 0

    def member(self, cluster: Cluster = PROD, **fields: object) -> Windows:
        spec = Dns("win1", "windows", "10.0.0.9", "k4t.lab", reverse=(REVERSE,))
        return Windows(dataclasses.replace(spec, **fields), cluster, self.transport)  # type: ignore[arg-type]

    def transport(self) -> FakeTransport:
        made = FakeTransport("win1")
        made.answer(["powershell"], self._answer)
        return made

    def _answer(self, argv: Sequence[str], input: bytes) -> Completed:
        fake_powershell.HERE = self.directory
        try:
            return Completed(0, fake_powershell.respond(argv[1:], input).encode(), b"")
        except SystemExit as end:
            return Completed(1, b"", str(end).encode())

    def publish(self, cluster: Cluster = PROD, **parts: object) -> Published:
        """A run of its own."""
        self.runs += 1
        publisher = Publisher([self.member(cluster)], cluster, f"run{self.runs}")
        return publisher.publish("dns", "default", changing(cluster, **parts))

    def observe(self, cluster: Cluster = PROD) -> ParticipantState:
        return self.member(cluster).observe()

    def rows(self, zone: str = "k4t.lab") -> list[str]:
        """`NAME TYPE TTL VALUE`, without what was there before k4t."""
        zones = json.loads((self.directory / "zones.json").read_text())
        return sorted(" ".join(map(str, row)) for row in zones[zone] if row[0] not in ("@", "printer"))

    def edit(self, change: Callable[[list[list[object]]], None]) -> None:
        """Somebody at the DNS console."""
        path = self.directory / "zones.json"
        zones = json.loads(path.read_text())
        change(zones["k4t.lab"])
        path.write_text(json.dumps(zones))

    def fault(self, *words: str) -> None:
        (self.directory / "fault").write_text(json.dumps(words))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    soa = ["@", "SOA", 3600, "ns1.k4t.lab. admin.k4t.lab. 1 2 3 4 5"]
    zones = {"k4t.lab": [soa, ["printer", "A", 3600, "10.6.6.6"]], REVERSE: []}
    (tmp_path / "zones.json").write_text(json.dumps(zones))
    return Server(tmp_path)


def changing(cluster: Cluster, **parts: object) -> Callable[[Document | None], Document]:
    blank = Document(cluster.id, cluster.name, "dns", "default")
    return lambda live: make(dataclasses.replace(live or blank, **parts))  # type: ignore[arg-type]


def web(*ips: str, port: int = 80) -> tuple[Endpoint, ...]:
    return tuple(Endpoint("web", ip, port, container=f"c{ip}") for ip in ips)


# --- what is sent --------------------------------------------------------------------------------------------


def test_what_is_sent_is_what_was_recorded() -> None:
    """Command and program, word for word: who changes them reads what changes (K4T_WRITE_CASES=1 records anew)."""
    for name, text in (("bootstrap.ps1", powershell.BOOTSTRAP + "\n"), ("program.ps1", powershell.PROGRAM)):
        path = HERE / "golden" / name
        if os.environ.get("K4T_WRITE_CASES"):
            path.write_text(text)
        assert path.read_text() == text


def test_no_value_is_part_of_the_command() -> None:
    """The line is always the same, short (cmd.exe takes 8191 characters), and nothing in it wants quoting; all else is
    ASCII on standard input."""
    line = " ".join(powershell.argv())
    assert len(line) < 1000
    assert re.fullmatch(r"[A-Za-z0-9+/= -]+", line)
    nasty = {"state": "k4t.lab", "do": [{"value": "'; Remove-Item C:\\ -Recurse #\u2019\n$(calc)"}]}
    sent = powershell.standard_input(nasty)
    assert sent.isascii()
    assert sent.count(b"\n") == 1
    assert json.loads(sent)["request"] == nasty
    assert "$request.do" in powershell.PROGRAM
    assert "Invoke-Expression" not in powershell.PROGRAM


def test_a_whole_talk_as_it_was_recorded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish, change, take away: every request and answer."""
    numbers = iter(range(1000))
    monkeypatch.setattr("k4t.dns.powershell.secrets.token_hex", lambda _: f"token{next(numbers):03d}")
    monkeypatch.setattr("k4t.dns.zone.secrets.token_hex", lambda _: f"{next(numbers):016x}")
    server.publish(endpoints=web("10.0.0.1", "fd88::1"), records=(WEB, SRV))
    server.publish(endpoints=web("10.0.0.2"))
    server.publish(endpoints=(), records=())
    talk = [json.loads(line) for line in (server.directory / "talk").read_text().splitlines()]
    said = "".join(shown(part) for part in talk)
    path = HERE / "golden/talk.txt"
    if os.environ.get("K4T_WRITE_CASES"):
        path.write_text(said)
    assert path.read_text() == said


def shown(part: dict[str, dict[str, object]]) -> str:
    """One request and its answer, as text for people; of what is remembered only which names there are."""
    request, answer = part["request"], part["answer"]
    lines = [f"ask {at['zone']} {at['name']}" for at in request["ask"]]  # type: ignore[attr-defined]
    for op in request["do"]:  # type: ignore[attr-defined]
        ttl = f" ttl {op['ttl_s']}" if "ttl_s" in op else ""
        lines.append(f"{op['do']} {op['zone']} {op['name']} {op['type']} {op['value']}{ttl}")
    if request["write"]:
        token, _, text = str(request["write"]).partition("\n")
        lines.append(f"write {request['state']} {token} over {request['expect'] or 'nothing'}:")
        lines += [f"    {name}" for name in json.loads(text)["names"]]
    lines += [f"  -> {' '.join(map(str, row.values()))}" for row in answer.get("found", ())]  # type: ignore[attr-defined]
    lines += ["  -> raced"] if answer.get("raced") else []
    return "\n".join(lines or [f"read {request['state']}"]) + "\n\n"


# --- publishing ----------------------------------------------------------------------------------------------


def test_records_of_every_kind(server: Server) -> None:
    """A, AAAA, SRV with its host, PTR, each with its TTL; read back; changed; all gone in the end but what was."""
    server.publish(endpoints=web("10.0.0.1", "fd88::1", port=8080), records=(WEB, SRV))
    assert server.rows() == [
        "10-0-0-1.web A 7 10.0.0.1",
        "_http._tcp.web SRV 7 0 1 8080 10-0-0-1.web.k4t.lab.",
        "_http._tcp.web SRV 7 0 1 8080 fd88-0-0-0-0-0-0-1.web.k4t.lab.",
        "fd88-0-0-0-0-0-0-1.web AAAA 7 fd88::1",
        "web A 30 10.0.0.1",
        "web AAAA 30 fd88::1",
    ]
    assert server.rows(REVERSE) == ["1 PTR 30 web.k4t.lab."]
    state = server.observe()
    assert (state.reachable, state.differences, state.rendered) == (True, (), True)
    server.publish(endpoints=web("10.0.0.2"), records=(dataclasses.replace(WEB, ttl_s=5),))
    assert server.rows() == ["web A 5 10.0.0.2"]
    assert server.rows(REVERSE) == ["2 PTR 5 web.k4t.lab."]
    server.publish(endpoints=web("10.0.0.2"), records=(dataclasses.replace(WEB, ttl_s=60),))
    assert server.rows() == ["web A 60 10.0.0.2"]
    server.publish(endpoints=(), records=())
    assert server.rows() == []
    assert server.rows(REVERSE) == []
    assert server.observe().differences == ()


def test_two_clusters(server: Server) -> None:
    """They add up; what one takes away leaves the other's; another app's name is refused, naming the owner."""
    server.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    server.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    assert server.rows() == ["web A 30 10.0.0.1", "web A 30 10.0.0.2"]
    api = (Endpoint("api", "10.0.0.3", 80, container="c3"),)
    with pytest.raises(StepError, match=r"record web\.k4t\.lab of app api belongs to app web of cluster other"):
        server.publish(Cluster("third", "aaaa1111"), endpoints=api, records=(Record("web", "api"),))
    server.publish(endpoints=(), records=())
    assert server.rows() == ["web A 30 10.0.0.2"]
    assert server.observe(OTHER).differences == ()


def test_a_strangers_name_is_refused(server: Server) -> None:
    """It was there before k4t, and stays as it is."""
    with pytest.raises(VendorRefused, match=r"printer\.k4t\.lab A 10\.6\.6\.6 is in the zone already"):
        server.publish(endpoints=web("10.0.0.1"), records=(Record("printer", "web"),))
    assert server.rows() == []


def test_drift_is_told_and_healed(server: Server) -> None:
    """Somebody at the console: a value, a TTL, an alias in the way; told, and put right by the next publication."""
    server.publish(endpoints=web("10.0.0.1"), records=(WEB, Record("www", "web")))

    def change(rows: list[list[object]]) -> None:
        rows[:] = [row for row in rows if row[0] != "www"]
        rows.append(["www", "CNAME", 60, "elsewhere.example."])
        next(row for row in rows if row[0] == "web")[2] = 99

    server.edit(change)
    assert server.observe().differences == (
        "web.k4t.lab A has TTL 99 s, not 30 s",
        "www.k4t.lab does not give 10.0.0.1",
        "www.k4t.lab is an alias of elsewhere.example., which is not published",
    )
    server.publish(endpoints=web("10.0.0.1"))
    assert server.rows() == ["web A 30 10.0.0.1", "www A 30 10.0.0.1"]
    assert server.observe().differences == ()


def test_who_was_overtaken_changes_nothing(server: Server) -> None:
    """The file is compared and set: an older run's document is refused."""
    slow, fast = server.member(), server.member()
    slow.observe()
    slow.fence(Epoch(1, "slow"))
    fast.observe()
    fast.fence(Epoch(2, "fast"))
    made = make(
        Document(PROD.id, PROD.name, "dns", "default", Epoch(1, "slow"), 1, "", web("10.0.0.1"), records=(WEB,))
    )
    with pytest.raises(Overtaken, match=r"run slow \(epoch 1\) was overtaken by run fast"):
        slow.prepare("1:slow:dns:default:1", made)
    assert server.rows() == []


def test_the_power_goes_between_two_records(server: Server) -> None:
    """Records half changed, nothing remembered of it: told as drift, and the next run goes through it again."""
    server.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    (server.directory / "stop-after").write_text("1")
    with pytest.raises(StepError, match="no answer of PowerShell"):
        server.publish(endpoints=web("10.0.0.2", "10.0.0.3"))
    assert server.rows() == ["web A 30 10.0.0.1", "web A 30 10.0.0.2"]
    state = server.observe()
    assert state.document is not None
    assert state.document.endpoints == web("10.0.0.1")
    assert state.differences == (
        "web.k4t.lab gives 10.0.0.2, which is not published",
        f"1.{REVERSE} does not give web.k4t.lab",
    )
    server.publish(endpoints=web("10.0.0.2", "10.0.0.3"))
    assert server.rows() == ["web A 30 10.0.0.2", "web A 30 10.0.0.3"]
    assert server.observe().differences == ()


def test_a_record_that_the_server_will_not_have(server: Server) -> None:
    """Accepted, not rendered, with the server's words: what was changed before is changed back; the next goes on."""

    def alias(rows: list[list[object]]) -> None:
        rows[:] = [row for row in rows if row[0] != "www"]
        rows.append(["www", "CNAME", 60, "elsewhere.example."])

    www = Record("www", "web")
    server.publish(endpoints=web("10.0.0.1"), records=(WEB, www))
    server.edit(alias)
    before = server.rows()
    (server.directory / "full").write_text('"10.0.0.3"')
    with pytest.raises(VendorRefused, match=r"DNS server could not write to the file\.; accepted, not rendered"):
        server.publish(endpoints=web("10.0.0.2", "10.0.0.3"), records=(dataclasses.replace(WEB, ttl_s=9), www))
    state = server.observe()
    assert (state.rendered, state.problem) == (False, "DNS server could not write to the file.")
    assert state.document is not None
    assert state.document.endpoints == web("10.0.0.2", "10.0.0.3")
    assert server.rows() == before
    (server.directory / "full").unlink()
    server.publish(endpoints=web("10.0.0.2", "10.0.0.3"))
    assert server.rows() == [f"{name} A {ttl} {ip}" for name, ttl in (("web", 9), ("www", 30)) for ip in IPS]
    assert server.observe().rendered


def test_withdrawn_and_restored(server: Server) -> None:
    """As with any zone: out at once, kept out by what is remembered, back when it is taken back."""
    server.publish(endpoints=web("10.0.0.1", "10.0.0.2"), records=(WEB,))
    assert server.member().withdraw("web", "10.0.0.1", 80, by="monitor", why="it burns")
    assert server.rows() == ["web A 30 10.0.0.2"]
    assert server.observe().differences == ()
    assert server.member().restore("10.0.0.1", 80)
    assert server.rows() == ["web A 30 10.0.0.1", "web A 30 10.0.0.2"]


def test_a_blank_replacement(server: Server) -> None:
    """It holds nothing and has another id; one publication fills it."""
    server.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    before = server.observe().id
    (server.directory / "ProgramData/k4t/dns/k4t.lab.json").unlink()
    server.edit(lambda rows: rows.clear())
    state = server.observe()
    assert (state.document, state.id) == (None, "")
    server.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    assert server.rows() == ["web A 30 10.0.0.1"]
    assert server.observe().id not in ("", before)


def test_the_memory_alone_is_gone(server: Server) -> None:
    """Its names are a stranger's then: said by name, not taken over."""
    server.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    (server.directory / "ProgramData/k4t/dns/k4t.lab.json").unlink()
    with pytest.raises(VendorRefused, match=r"web\.k4t\.lab A 10\.0\.0\.1 is in the zone already, and not k4t's"):
        server.publish(endpoints=web("10.0.0.1"), records=(WEB,))


# --- what goes wrong -----------------------------------------------------------------------------------------


def test_what_the_server_says(server: Server) -> None:
    """No right, no such zone, no module, a refusal: each has its error, its words and its remedy."""
    assert server.member(zone="other.lab").observe().problem.startswith("win1: The zone other.lab was not found")
    cases = [
        (("WIN32 5,Get-DnsServerZone", "PermissionDenied", "Access is denied."), LoginRefused, "DnsAdmins"),
        (("CommandNotFoundException", "ObjectNotFound", "The term …"), StepError, "RSAT-DNS-Server"),
        (("WIN32 9717,Add-", "NotSpecified", "DNS zone is shut down."), VendorRefused, "shut down"),
    ]
    for fault, kind, words in cases:
        server.fault(*fault)
        with pytest.raises(kind, match=words):
            server.member().fence(Epoch(9, "x"))
        assert server.observe().reachable is False
    (server.directory / "fault").unlink()
    assert list(install(server.transport(), Dns("win1", "windows", "10.0.0.9", "k4t.lab"))) == [
        "nothing to install: PowerShell answers for k4t.lab"
    ]


def test_who_is_no_windows(server: Server) -> None:
    """A host without PowerShell, and one that answers something else."""
    transport = FakeTransport("win1")
    transport.answer(["powershell"], Completed(127, b"", b"sh: 1: powershell: not found\n"))
    member = Windows(Dns("win1", "windows", "10.0.0.9", "k4t.lab"), PROD, lambda: transport)
    state = member.observe()
    assert "no answer of PowerShell, but: sh: 1: powershell: not found" in state.problem
    assert "is that a Windows host" in state.problem


def test_a_damaged_file(server: Server) -> None:
    """By its path on that host; nothing is written over it."""
    server.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    path = server.directory / "ProgramData/k4t/dns/k4t.lab.json"
    path.write_text(path.read_text()[:-20])
    assert "C:\\ProgramData\\k4t\\dns\\k4t.lab.json is damaged" in server.observe().problem
    with pytest.raises(StepError, match="is damaged"):
        server.publish(endpoints=web("10.0.0.2"))
    assert server.rows() == ["web A 30 10.0.0.1"]


def test_capabilities_are_said() -> None:
    """Everything that a record can say."""
    assert Windows.capabilities.srv
    assert Windows.capabilities.ttl_per_record


def test_its_host_key_is_enrolled_with_the_others(tmp_path: Path) -> None:
    """It has no shell and takes no lock, but it is asked by SSH: `k4t trust` without names has it too."""
    (tmp_path / "dns").mkdir()
    (tmp_path / "nodes").mkdir()
    (tmp_path / "cluster.xml").write_text('<cluster name="prod" id="k7f3q2m9" format="1"/>\n')
    (tmp_path / "dns/win1.xml").write_text('<dns driver="windows" address="10.0.0.9" zone="k4t.lab"/>\n')
    (tmp_path / "dns/ns1.xml").write_text('<dns driver="rfc2136" address="10.0.0.10" zone="k4t.lab"/>\n')
    (tmp_path / "nodes/n1.xml").write_text('<node address="10.0.0.1"/>\n')
    tree = read_tree(tmp_path)
    assert [host.name for host in hosts_of(tree).values()] == ["n1"]
    assert sorted(host.name for host in wiring._hosts_named(tree, ())) == ["n1", "win1"]
