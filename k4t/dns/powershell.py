"""Windows' DNS server, by its PowerShell cmdlets over SSH (OpenSSH server, PowerShell 5.1, module DnsServer).

One `powershell` a request. Its command line is always the same few words, base64 of UTF-16LE, which read everything
else from standard input: the program below and its request, as JSON in ASCII. So no value is ever part of a command,
no shell's limits or quoting matter, and the answer is one line of JSON in ASCII.

Records are the server's. What k4t remembers (TXT records elsewhere, see zonestate) is a file of JSON in ProgramData, a
zone each, replaced by rename: a compare-and-set by the token in its first line, under a mutex of that host. Records are
changed before it, and changed back where the server refuses one of them: a run that dies in between is seen as drift,
and gone through again.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k4t.dns.wire import Change, Name, Raced, Records
from k4t.errors import ConnectionLost, K4tError, LoginRefused, StepError, VendorRefused

if TYPE_CHECKING:
    from k4t.command import Completed
    from k4t.remote.transport import Transport

TIMEOUT_S = 90.0
MAX_BYTES = 64 * 1024 * 1024
RETRIES = 5
FORMAT = 1
ZONE = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,250}[a-z0-9])?\Z")

BOOTSTRAP = '$said = ConvertFrom-Json (@($input) -join "`n"); & ([ScriptBlock]::Create($said.program)) $said.request'
PROGRAM = r"""
param($request)
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

function Get-Value($record) {
    $data = $record.RecordData
    switch ([string]$record.RecordType) {
        'A'     { $data.IPv4Address.IPAddressToString }
        'AAAA'  { $data.IPv6Address.IPAddressToString }
        'SRV'   { '{0} {1} {2} {3}' -f $data.Priority, $data.Weight, $data.Port, $data.DomainName }
        'PTR'   { $data.PtrDomainName }
        'CNAME' { $data.HostNameAlias }
    }
}

function Find-Record($at) {
    try { $found = @(Get-DnsServerResourceRecord -ZoneName $at.zone -Name $at.name -Node) }
    catch {
        if ($_.FullyQualifiedErrorId -notmatch '^WIN32 (9701|9714)\b') { throw }   # no such record, no such name
        $found = @()
    }
    $found | Where-Object { Get-Value $_ }
}

function Test-Same($record, $op) {
    if ([string]$record.RecordType -ne $op.type) { return $false }
    $there = [string](Get-Value $record)
    if ($op.type -in 'A', 'AAAA') { return ([ipaddress]$op.value).Equals([ipaddress]$there) }
    return $op.value.TrimEnd('.') -eq $there.TrimEnd('.')
}

function Find-One($op) {
    Find-Record $op | Where-Object { Test-Same $_ $op }
}

function Add-One($op) {
    $with = @{ ZoneName = $op.zone; Name = $op.name; TimeToLive = [TimeSpan]::FromSeconds($op.ttl_s) }
    switch ($op.type) {
        'A' {
            $with.IPv4Address = $op.value
            Add-DnsServerResourceRecord @with -A
        }
        'AAAA' {
            $with.IPv6Address = $op.value
            Add-DnsServerResourceRecord @with -AAAA
        }
        'PTR' {
            $with.PtrDomainName = $op.value
            Add-DnsServerResourceRecord @with -Ptr
        }
        'CNAME' {
            $with.HostNameAlias = $op.value
            Add-DnsServerResourceRecord @with -CName
        }
        'SRV' {
            $with.Priority, $with.Weight, $with.Port, $with.DomainName = -split $op.value
            Add-DnsServerResourceRecord @with -Srv
        }
    }
}

function Invoke-One($op) {
    switch ($op.do) {
        'add'  { Add-One $op }
        'drop' {
            Find-One $op | ForEach-Object { Remove-DnsServerResourceRecord -ZoneName $op.zone -InputObject $_ -Force }
        }
        'ttl'  {
            Find-One $op | ForEach-Object {
                $new = [ciminstance]::new($_)
                $new.TimeToLive = [TimeSpan]::FromSeconds($op.ttl_s)
                Set-DnsServerResourceRecord -ZoneName $op.zone -OldInputObject $_ -NewInputObject $new
            }
        }
    }
}

function Invoke-All($operations) {
    $done = @()
    foreach ($op in $operations) {
        try { [void](Invoke-One $op) }
        catch {
            $failure = $_
            foreach ($before in $done) { try { [void](Invoke-One $before.undo) } catch { continue } }
            throw $failure
        }
        $done = @($op) + $done
    }
}

function Write-State($path, $text) {
    [void][IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($path))
    $bytes = [Text.Encoding]::ASCII.GetBytes($text)
    $file = [IO.File]::Create("$path.new")
    try { $file.Write($bytes, 0, $bytes.Length); $file.Flush($true) } finally { $file.Dispose() }
    if ([IO.File]::Exists($path)) { [IO.File]::Replace("$path.new", $path, [NullString]::Value) }
    else { [IO.File]::Move("$path.new", $path) }
}

$answer = @{}
$held = $false
$mutex = New-Object System.Threading.Mutex($false, 'Global\k4t-dns')
try {
    try { $held = $mutex.WaitOne(15000) } catch [System.Threading.AbandonedMutexException] { $held = $true }
    if (-not $held) { throw 'another run of k4t has been at work here for 15 s' }
    $path = [IO.Path]::Combine($env:ProgramData, 'k4t', 'dns', $request.state + '.json')
    $text = ''
    if ([IO.File]::Exists($path)) { $text = [IO.File]::ReadAllText($path) }
    foreach ($zone in $request.zones) { [void](Get-DnsServerZone -Name $zone) }
    if ($request.write -and ($text -split "`n", 2)[0] -cne $request.expect) { $answer.raced = $true }
    else {
        Invoke-All $request.do
        if ($request.write) { Write-State $path $request.write; $text = $request.write }
    }
    $answer.state = $text
    $answer.found = @(foreach ($at in $request.ask) {
        foreach ($record in @(Find-Record $at)) {
            @{ zone = $at.zone; name = $at.name; type = [string]$record.RecordType
               ttl_s = [int]$record.TimeToLive.TotalSeconds; value = [string](Get-Value $record) }
        }
    })
}
catch {
    $answer = @{ error = @{ words = $_.Exception.Message; id = $_.FullyQualifiedErrorId
                            category = [string]$_.CategoryInfo.Category } }
}
finally { if ($held) { $mutex.ReleaseMutex() } }
$json = ConvertTo-Json -InputObject $answer -Compress -Depth 8
[Console]::Out.WriteLine([regex]::Replace($json, '[^\x20-\x7e]', { param($m) '\u{0:x4}' -f [int][char]$m.Value }))
""".lstrip()


def argv() -> list[str]:
    """The words of every request."""
    encoded = base64.b64encode(BOOTSTRAP.encode("utf-16-le")).decode()
    return ["powershell", "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded]


def standard_input(request: Mapping[str, Any]) -> bytes:
    return json.dumps({"program": PROGRAM, "request": request}, sort_keys=True).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is remembered of a zone, as it was last seen. `token` changes with every writing."""

    token: str
    names: Mapping[Name, Records]


class PowerShellServer:
    """One zone. Implements k4t.dns.wire.ZoneServer. TXT is what k4t remembers, all other types are the server's.

    Methods raise what connecting raises, LoginRefused (no right to the zone), VendorRefused, ConnectionLost, StepError.
    """

    def __init__(self, host: str, zone: str, connect: Callable[[], Transport]) -> None:
        self.host = host
        self.zone = zone
        self._connect = connect
        self._snapshot: Snapshot | None = None

    def ask(self, names: Iterable[Name]) -> dict[Name, Records]:
        """What is remembered is as of the last question for records or for the index: one picture of a moment."""
        listed = list(dict.fromkeys(names))
        records = [name for name in listed if name[1] != "TXT"]
        index = (f"_k4t.{self.zone}", "TXT")
        found: dict[Name, Records] = {}
        if records or index in listed or self._snapshot is None:
            found = self._read(records)
        known = self._known.names
        return found | {name: known[name] for name in listed if name in known}

    def update(self, change: Change, *, known: bool = False) -> None:  # noqa: ARG002 - one code has one meaning here
        """Raises Raced, and what all methods raise."""
        touched = (*change.absent, *change.equal, *change.put, *change.remove, *change.add, *change.drop)
        records = [name for name in dict.fromkeys(touched) if name[1] != "TXT"]
        for _ in range(RETRIES):
            found = self._read(records) if records or self._snapshot is None else {}
            there = {**found, **self._known.names}
            _need(change, there)
            names = _remembered(change, self._known.names)
            do = _operations(self._place, change, found)
            if names == self._known.names and not do:
                return
            if not self._write(names, do):
                return
            if change.absent or change.equal:
                raise Raced("somebody else wrote first")
        raise StepError(f"{RETRIES} times somebody else wrote to {self.zone} first", "try again", host=self.host)

    def size_bytes(self, change: Change) -> int:  # noqa: ARG002 - it has no limit
        return 0

    def close(self) -> None:
        """The connection is its owner's."""

    # --- requests ------------------------------------------------------------------------------------------

    @property
    def _known(self) -> Snapshot:
        return self._snapshot or Snapshot("", {})

    def _read(self, names: Sequence[Name]) -> dict[Name, Records]:
        """Records of these names, and of aliases in their place."""
        places = {name: self._place(name) for name in sorted({name for name, _ in names})}
        answer = self._request(ask=list(places.values()))
        full = {place["name"]: name for name, place in places.items()}
        wanted = {*names, *((name, "CNAME") for name in places)}
        found: dict[Name, Records] = {}
        for row in answer["found"]:
            at = (full[row["name"]], row["type"].upper())
            if at in wanted:
                values = found[at].values if at in found else frozenset[str]()
                ttl_s = min(row["ttl_s"], found[at].ttl_s) if at in found else row["ttl_s"]
                found[at] = Records(ttl_s, values | {_plain(at[1], row["value"])})
        return found

    def _write(self, names: Mapping[Name, Records], do: Sequence[Mapping[str, Any]]) -> bool:
        """True: somebody else wrote first, and nothing was done."""
        more: dict[str, Any] = {"do": list(do)}
        if names != self._known.names:
            more |= {"expect": self._known.token, "write": _text(secrets.token_hex(8), names)}
        return bool(self._request(**more).get("raced"))

    def _request(self, **more: Any) -> dict[str, Any]:
        if not ZONE.match(self.zone):
            raise StepError(f"{self.zone[:80]!r} is no zone's name", host=self.host)
        request = {"state": self.zone, "zones": [self.zone], "ask": [], "do": [], "expect": "", "write": "", **more}
        done = self._connect().run(
            argv(), input=standard_input(request), timeout_s=TIMEOUT_S, max_output_bytes=MAX_BYTES, bare=True
        )
        answer = self._parsed(done)
        if "error" in answer:
            raise self._error(answer["error"])
        self._snapshot = self._remember(str(answer["state"]))
        return answer

    def _parsed(self, done: Completed) -> dict[str, Any]:
        if done.exit_status is None:
            raise ConnectionLost("PowerShell's answer was lost: in doubt", host=self.host)
        lines = done.stdout.strip().splitlines() or [b""]
        try:
            answer = json.loads(lines[-1])
        except ValueError:
            answer = None
        if isinstance(answer, dict) and ("error" in answer or {"state", "found"} <= set(answer)):
            return answer
        said = f"no answer of PowerShell, but: {done.words()}"
        raise StepError(said, "is that a Windows host, with PowerShell 5.1 or newer?", host=self.host)

    def _error(self, error: Mapping[str, Any]) -> K4tError:
        words, identity = " ".join(str(error.get("words")).split()), str(error.get("id"))
        if "CommandNotFound" in identity:
            return StepError(words, "Install-WindowsFeature RSAT-DNS-Server there", host=self.host)
        if error.get("category") == "PermissionDenied" or identity.startswith("WIN32 5,"):
            return LoginRefused(words, "the login needs the rights of DnsAdmins there", host=self.host)
        if identity.startswith("WIN32 9601"):
            return VendorRefused(words, f"Add-DnsServerPrimaryZone -Name {self.zone} … there", host=self.host)
        return VendorRefused(words, host=self.host)

    def _remember(self, text: str) -> Snapshot:
        if not text:
            return Snapshot("", {})
        token, _, rest = text.partition("\n")
        try:
            content = json.loads(rest)
            if content["format"] > FORMAT:
                raise StepError(f"what k4t keeps of {self.zone} was written by a newer k4t", "use that", host=self.host)
            names = {
                (name, "TXT"): Records(int(one["ttl_s"]), frozenset(map(str, one["values"])))
                for name, one in content["names"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            path = rf"C:\ProgramData\k4t\dns\{self.zone}.json"
            raise StepError(f"{path} is damaged", "remove it and publish again", host=self.host) from error
        return Snapshot(token, names)

    def _place(self, name: str) -> dict[str, Any]:
        """As the cmdlets name it: within its zone."""
        return {"zone": self.zone, "name": "@" if name == self.zone else name.removesuffix("." + self.zone)}


def _plain(kind: str, value: str) -> str:
    """As a zone file has it; names of other kinds end in a dot."""
    return str(ipaddress.ip_address(value)) if kind in ("A", "AAAA") else value.lower().rstrip(".") + "."


def _text(token: str, names: Mapping[Name, Records]) -> str:
    content = {name: {"ttl_s": one.ttl_s, "values": sorted(one.values)} for (name, _), one in sorted(names.items())}
    return token + "\n" + json.dumps({"format": FORMAT, "names": content}, sort_keys=True) + "\n"


def _need(change: Change, there: Mapping[Name, Records]) -> None:
    for name in change.absent:
        if name in there:
            raise Raced(f"{name[0]} {name[1]} is there")
    for name, values in change.equal.items():
        if name not in there or there[name].values != values:
            raise Raced(f"{name[0]} {name[1]} is not as it was")


def _remembered(change: Change, names: Mapping[Name, Records]) -> dict[Name, Records]:
    """What is to be remembered after a change. Nobody adds single TXT values."""
    gone = {name for name in change.remove if name[1] == "TXT"}
    kept = {name: one for name, one in names.items() if name not in gone}
    return kept | {name: one for name, one in change.put.items() if name[1] == "TXT"}


def _operations(
    place: Callable[[str], dict[str, Any]], change: Change, found: Mapping[Name, Records]
) -> list[dict[str, Any]]:
    """From what there is to what should be: aliases go first (nothing may stand beside them), then what is new comes,
    then what is old goes. Each has its `undo`, for when a later one is refused."""
    aliases, new, old = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    nothing = Records(0, frozenset())
    goals = {name: one for name, one in change.put.items() if name[1] != "TXT"}
    goals |= {name: nothing for name in change.remove if name[1] != "TXT"}
    for (name, kind), goal in sorted(goals.items(), key=lambda item: item[0]):
        there, at = found.get((name, kind), nothing), {**place(name), "type": kind}
        new += [_add(at, value, goal.ttl_s) for value in sorted(goal.values - there.values)]
        if there.ttl_s != goal.ttl_s:
            new += [_ttl(at, value, there.ttl_s, goal.ttl_s) for value in sorted(goal.values & there.values)]
        gone = [_drop(at, value, there.ttl_s) for value in sorted(there.values - goal.values)]
        (aliases if kind == "CNAME" else old).extend(gone)
    for (name, kind), one in change.add.items():
        there, at = found.get((name, kind), nothing), {**place(name), "type": kind}
        new += [_add(at, value, one.ttl_s) for value in sorted(one.values - there.values)]
    for (name, kind), values in change.drop.items():
        there, at = found.get((name, kind), nothing), {**place(name), "type": kind}
        old += [_drop(at, value, there.ttl_s) for value in sorted(values & there.values)]
    return [*aliases, *new, *old]


def _add(at: Mapping[str, Any], value: str, ttl_s: int) -> dict[str, Any]:
    one = {**at, "value": value, "ttl_s": ttl_s}
    return {**one, "do": "add", "undo": {**one, "do": "drop"}}


def _drop(at: Mapping[str, Any], value: str, ttl_s: int) -> dict[str, Any]:
    one = {**at, "value": value, "ttl_s": ttl_s}
    return {**one, "do": "drop", "undo": {**one, "do": "add"}}


def _ttl(at: Mapping[str, Any], value: str, before_s: int, ttl_s: int) -> dict[str, Any]:
    one = {**at, "value": value, "do": "ttl"}
    return {**one, "ttl_s": ttl_s, "undo": {**one, "ttl_s": before_s}}
