#!/usr/bin/env python3
"""A stand-in for `powershell` on a Windows DNS server: standard library alone, it runs in a lab's host.

It takes the one command line and the one program that golden/ has, word for word, and nothing else; what that program
does with a request is done here to zones.json in its directory, with the errors that the cmdlets have. It shows that
k4t asks for the right things in the right order, not that Windows would do them.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent / "golden"
HERE = Path(os.environ.get("FAKE_WINDOWS", "/srv/windows"))
Zones = dict[str, list[list[Any]]]


class Failed(Exception):
    def __init__(self, identity: str, category: str, words: str) -> None:
        super().__init__(words)
        self.answer = {"error": {"id": identity, "category": category, "words": words}}


def load(name: str, otherwise: Any) -> Any:
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else otherwise


def save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


def records_of(zones: Zones, zone: str) -> list[list[Any]]:
    """[[name, type, ttl_s, value], …]"""
    if zone not in zones:
        raise Failed("WIN32 9601,Get-DnsServerZone", "ObjectNotFound", f"The zone {zone} was not found on server.")
    return zones[zone]


def operate(zones: Zones, op: dict[str, Any]) -> None:
    records = records_of(zones, op["zone"])
    same = [row for row in records if (row[0], row[1], row[3]) == (op["name"], op["type"], op["value"])]
    if op["value"] == load("full", None):
        raise Failed(
            "WIN32 9562,Add-DnsServerResourceRecord", "NotSpecified", "DNS server could not write to the file."
        )
    if op["do"] == "add":
        if same:
            raise Failed("WIN32 9711,Add-DnsServerResourceRecord", "ResourceExists", "DNS record already exists.")
        if any(row[0] == op["name"] and row[1] == "CNAME" for row in records):
            raise Failed("WIN32 9709,Add-DnsServerResourceRecord", "InvalidOperation", "An alias is there.")
        records.append([op["name"], op["type"], op["ttl_s"], op["value"]])
    elif op["do"] == "drop":
        records[:] = [row for row in records if row not in same]
    elif op["do"] == "ttl":
        for row in same:
            row[2] = op["ttl_s"]
    else:
        raise Failed("no such op", "InvalidArgument", op["do"])


def carry_out(request: dict[str, Any]) -> dict[str, Any]:
    if fault := load("fault", None):
        raise Failed(*fault)
    zones: Zones = load("zones.json", {})
    for zone in request["zones"]:
        records_of(zones, zone)
    path = HERE / "ProgramData/k4t/dns" / (request["state"] + ".json")
    text = path.read_text() if path.exists() else ""
    answer: dict[str, Any] = {}
    if request["write"] and text.split("\n")[0] != request["expect"]:
        answer["raced"] = True
    else:
        operate_all(zones, request["do"])
        if request["write"]:
            save(path, request["write"])
            text = request["write"]
    answer["state"] = text
    answer["found"] = [
        {"zone": at["zone"], "name": at["name"], "type": row[1], "ttl_s": row[2], "value": row[3]}
        for at in request["ask"]
        for row in records_of(zones, at["zone"])
        if row[0].lower() == at["name"].lower()
    ]
    return answer


def operate_all(zones: Zones, operations: list[dict[str, Any]]) -> None:
    """Where one fails, those before it are undone. `stop-after`: the power goes at that one."""
    stop_after = load("stop-after", None)
    try:
        for number, op in enumerate(operations):
            if number == stop_after:
                (HERE / "stop-after").unlink()
                raise SystemExit(1)
            try:
                operate(zones, op)
            except Failed:
                for before in reversed(operations[:number]):
                    operate(zones, before["undo"])
                raise
    finally:
        save(HERE / "zones.json", json.dumps(zones, indent=1))


def respond(words: Sequence[str], data: bytes) -> str:
    """Its one line of output. Raises SystemExit for what was not recorded, and where the power goes."""
    if list(words[:-1]) != ["-NoProfile", "-NonInteractive", "-EncodedCommand"]:
        raise SystemExit(f"not what was recorded: {words}")
    command = base64.b64decode(words[-1], validate=True).decode("utf-16-le")
    if command + "\n" != (GOLDEN / "bootstrap.ps1").read_text():
        raise SystemExit("not the command that was recorded")
    said = json.loads(data.decode("ascii"))
    if said["program"] != (GOLDEN / "program.ps1").read_text():
        raise SystemExit("not the program that was recorded")
    with (HERE / "mutex").open("w") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        try:
            answer = carry_out(said["request"])
        except Failed as failure:
            answer = failure.answer
        with (HERE / "talk").open("a") as talk:
            talk.write(json.dumps({"request": said["request"], "answer": answer}, sort_keys=True) + "\n")
    return json.dumps(answer) + "\r\n"


if __name__ == "__main__":
    sys.stdout.write(respond(sys.argv[1:], sys.stdin.buffer.read()))
