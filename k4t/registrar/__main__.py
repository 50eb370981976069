"""k4t-registrar: by rpc for k4t, and by hand.

    k4t-registrar --driver envoy rpc                            one JSON request a line, one JSON answer a line
    k4t-registrar --driver envoy add      --cname web --ip 10.0.0.7 --port 8080
    k4t-registrar --driver envoy remove   --cname web --ip 10.0.0.7 --port 8080
    k4t-registrar --driver envoy withdraw --cname web --ip 10.0.0.7 --port 8080 --why "it burns"
    k4t-registrar --driver envoy list | check

An answer is {"ok": …} or {"error": {"type", "message"}}. The driver may be left out where only one is set up.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 8):  # noqa: UP036
    sys.stderr.write("k4t-registrar needs Python 3.8 or newer; this is %d.%d\n" % sys.version_info[:2])
    sys.exit(78)

import json
import os
from typing import Any, Dict, List, Optional, TextIO

from .document import MAX_BYTES
from .errors import Refused
from .files import full
from .service import Service

IDLE_S = 900
LINE_BYTES = MAX_BYTES * 2
USAGE = 64


def root() -> str:
    """Paths start here: / but in tests."""
    return os.environ.get("K4T_REGISTRAR_ROOT", "/")


def answer(service: Service, line: str) -> Dict[str, Any]:
    """Never raises: whatever goes wrong is the answer."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _error("bad-request", "no request: %s" % error)
    if not isinstance(request, dict):
        return _error("bad-request", "a request is a JSON object")
    try:
        return {"ok": service.answer(request)}
    except Refused as refusal:
        return _error(refusal.kind, str(refusal))
    except OSError as error:
        failure = full(error, str(error.filename or "a file"))
        return _error(getattr(failure, "kind", "internal"), str(failure))
    except Exception as error:  # noqa: BLE001 - the caller gets an answer, whatever it is
        return _error("internal", "%s: %s" % (type(error).__name__, error))


def _error(kind: str, message: str) -> Dict[str, Any]:
    return {"error": {"type": kind, "message": message}}


def serve(service: Service, requests: TextIO, answers: TextIO) -> int:
    """Answer line by line until end of file, or until nothing is asked for IDLE_S."""
    import signal

    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    while True:
        signal.alarm(IDLE_S)
        line = requests.readline(LINE_BYTES)
        signal.alarm(0)
        if not line:
            return 0
        if len(line) >= LINE_BYTES and not line.endswith("\n"):
            answers.write(json.dumps(_error("bad-request", "a request is at most %d bytes" % LINE_BYTES)) + "\n")
            answers.flush()
            return 1
        answers.write(json.dumps(answer(service, line), separators=(",", ":")) + "\n")
        answers.flush()


def installed() -> List[str]:
    directory = os.path.join(root(), "var/lib/k4t/registrar")
    if not os.path.isdir(directory):
        return []
    return sorted(n for n in os.listdir(directory) if os.path.isfile(os.path.join(directory, n, "config.json")))


def main(argv: Optional[List[str]] = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.umask(0o022)  # vendors that run as somebody else read what is written here
    if arguments[:1] == ["--driver"] and arguments[2:] == ["rpc"]:  # the hot path: no argparse
        return serve(Service(root(), arguments[1]), sys.stdin, sys.stdout)
    return by_hand(arguments)


def by_hand(arguments: List[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="k4t-registrar", description="What this host serves for k4t, by hand.")
    parser.add_argument("--driver", help="which one, where several are set up here")
    parser.add_argument("verb", choices=["rpc", "add", "remove", "withdraw", "list", "check"])
    parser.add_argument("--cluster", default="", help="rpc: the only cluster that may ask")
    parser.add_argument("--cname", help="the app")
    parser.add_argument("--ip")
    parser.add_argument("--port", type=int)
    parser.add_argument("--port-name", default="main")
    parser.add_argument("--why", default="")
    asked = parser.parse_args(arguments)
    drivers = [asked.driver] if asked.driver else installed()
    if len(drivers) != 1:
        parser.error("--driver is needed; set up here: %s" % (", ".join(drivers) or "none"))
    try:
        service = Service(root(), drivers[0], only=asked.cluster)
    except Refused as refusal:
        parser.error(str(refusal))
    if asked.verb == "rpc":
        return serve(service, sys.stdin, sys.stdout)
    if asked.verb in ("list", "check"):
        return show(answer(service, json.dumps({"op": asked.verb})))
    if not (asked.cname and asked.ip and asked.port is not None):
        parser.error("%s needs --cname, --ip and --port" % asked.verb)
    request = {"op": "manual", "by": os.environ.get("SUDO_USER") or os.environ.get("USER") or "", **vars(asked)}
    return show(answer(service, json.dumps(request)))


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


if __name__ == "__main__":
    sys.exit(main())
