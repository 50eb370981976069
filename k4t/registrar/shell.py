"""The registrar's command line for people, nodes and the monitor; also as the forced command of a restricted key."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shlex
import signal
import sys
from typing import Any, Dict, List, NoReturn, Sequence

from . import byhand
from .__main__ import answer, root, serve
from .errors import Refused
from .service import Service

USAGE = 64
BY_HAND = (*byhand.VERBS, "list", "check")
COMMAND_CHARACTERS = 8192
"""Of what the owner of a restricted key may ask in one line."""
MANY_BYTES = 1024 * 1024
MANY_S = 20
PORT = re.compile(r"[0-9]{1,5}\Z")


class Parser(argparse.ArgumentParser):
    """Whose word on wrong arguments is one line, and exit status 64 (EX_USAGE)."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write("k4t-registrar: %s; see k4t-registrar --help\n" % message)
        sys.exit(USAGE)


def by_hand(arguments: List[str]) -> int:
    parser = _parser(["rpc", "forced", *BY_HAND])
    parser.add_argument("--cluster", default="", help="rpc, forced: the only cluster that may ask")
    parser.add_argument("--verbs", default="", help="forced: which may be asked for, separated by commas")
    parser.add_argument("--by", default="", help="forced: whose key it is, shown to people")
    asked = parser.parse_args(arguments)
    if asked.verb == "forced":
        return forced(parser, asked)
    return carry_out(parser, asked, asked.cluster)


def forced(parser: Parser, key: argparse.Namespace) -> int:
    """What the owner of a restricted key wrote behind `ssh HOST`: words, never seen by a shell. Who it speaks for, what
    it may ask and whose key it is come from the key's line alone; the driver is one that is set up here."""
    verbs = [verb for verb in str(key.verbs).split(",") if verb]
    if not key.cluster or not verbs or not set(verbs) <= {"rpc", *BY_HAND}:
        parser.error("forced needs --cluster and --verbs of: rpc, %s" % ", ".join(BY_HAND))
    line = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    if len(line) > COMMAND_CHARACTERS or not line.isprintable():
        parser.error("a command is one line of at most %d printable characters" % COMMAND_CHARACTERS)
    try:
        words = shlex.split(line)
    except ValueError as error:
        parser.error("can't read the command: %s" % error)
    if words[:1] and os.path.basename(words[0]) == "k4t-registrar":
        del words[0]
    asked = _parser(verbs).parse_args(words)
    if key.driver and asked.driver not in (None, key.driver):
        parser.error("this key is for --driver %s" % key.driver)
    asked.driver = asked.driver or key.driver
    if asked.driver and asked.driver not in installed():
        parser.error("--driver %.40r is not set up here; there are: %s" % (asked.driver, ", ".join(installed()) or "-"))
    return carry_out(parser, asked, key.cluster, key.by)


def _parser(verbs: Sequence[str]) -> Parser:
    parser = Parser(prog="k4t-registrar", description="What this host serves for k4t, by hand.", allow_abbrev=False)
    parser.add_argument("--driver", help="which one, where several are set up here")
    parser.add_argument("verb", choices=list(verbs))
    parser.add_argument("--cname", help="the app")
    parser.add_argument("--ip")
    parser.add_argument("--port", type=int)
    parser.add_argument("--port-name", default="main")
    parser.add_argument("--why", default="")
    parser.add_argument(
        "--many", action="store_true", help="withdraw, restore: CNAME IP PORT, a line each, from standard input"
    )
    return parser


def carry_out(parser: Parser, asked: argparse.Namespace, only: str, by: str = "") -> int:
    """`only`: the cluster that a key speaks for, and `by`: whose it is; "" for root's own hands."""
    if asked.many and (asked.verb not in ("withdraw", "restore") or not only):
        parser.error("--many is for withdraw and restore, of a key's own cluster")
    drivers = [asked.driver] if asked.driver else installed()
    if len(drivers) != 1:
        parser.error("--driver is needed; set up here: %s" % (", ".join(drivers) or "none"))
    try:
        service = Service(root(), drivers[0], only=only)
    except Refused as refusal:
        parser.error(str(refusal))
    if asked.verb == "rpc":
        return serve(service, sys.stdin, sys.stdout)
    if asked.verb in ("list", "check"):
        return show(answer(service, json.dumps({"op": asked.verb, "cluster": only})))
    by = by or ("key of cluster %s" % only if only else os.environ.get("SUDO_USER") or getpass.getuser())
    if asked.many:
        return many(parser, asked, service, only, by)
    if not (asked.cname and asked.ip and asked.port is not None):
        parser.error("%s needs --cname, --ip and --port" % asked.verb)
    return show(answer(service, json.dumps({**vars(asked), "op": "manual", "by": by, "cluster": only})))


def many(parser: Parser, asked: argparse.Namespace, service: Service, only: str, by: str) -> int:
    """For programs: the answer is one JSON line, {"ok": …} or {"error": …}."""
    signal.alarm(MANY_S)  # ends this process
    data = sys.stdin.buffer.read(MANY_BYTES + 1)
    signal.alarm(0)
    rows = [line.split() for line in data.decode("ascii", "replace").splitlines()]
    if len(data) > MANY_BYTES or not all(len(row) == 3 and PORT.match(row[2]) for row in rows):
        parser.error("--many reads CNAME IP PORT, a line each, of at most %d bytes" % MANY_BYTES)
    entries = [{"cname": row[0], "ip": row[1], "port": int(row[2])} for row in rows]
    request = {"op": "several", "verb": asked.verb, "entries": entries, "by": by, "why": asked.why, "cluster": only}
    found = answer(service, json.dumps(request))
    sys.stdout.write(json.dumps(found, separators=(",", ":")) + "\n")
    return 1 if "error" in found else 0


def installed() -> List[str]:
    directory = os.path.join(root(), "var/lib/k4t/registrar")
    if not os.path.isdir(directory):
        return []
    return sorted(n for n in os.listdir(directory) if os.path.isfile(os.path.join(directory, n, "config.json")))


def show(found: Dict[str, Any]) -> int:
    if "error" in found:
        sys.stderr.write("k4t-registrar: %s\n" % found["error"]["message"])
        return 1
    result = found["ok"]
    for row in result.get("endpoints", ()):
        sys.stdout.write("%(owner)-16s %(app)-16s %(ip)s:%(port)d %(port_name)s\n" % row)
    for row in result.get("withdrawals", ()):
        sys.stdout.write("withdrawn        %(ip)s:%(port)d of cluster %(cluster)s by %(by)s: %(why)s\n" % row)
    wrong = list(result.get("differences", ())) + [
        text for text in (result.get("problem"), result.get("pending")) if text
    ]
    for text in wrong:
        sys.stderr.write(text + "\n")
    return 1 if wrong else 0
