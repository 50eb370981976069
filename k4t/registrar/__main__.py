"""k4t-registrar: by rpc for k4t, and by hand.

    k4t-registrar --driver envoy rpc                            one JSON request a line, one JSON answer a line
    k4t-registrar --driver envoy add      --cname web --ip 10.0.0.7 --port 8080
    k4t-registrar --driver envoy remove   --cname web --ip 10.0.0.7 --port 8080
    k4t-registrar --driver envoy withdraw --cname web --ip 10.0.0.7 --port 8080 --why "it burns"
    k4t-registrar --driver envoy restore  --cname web --ip 10.0.0.7 --port 8080
    k4t-registrar --driver envoy list | check
    k4t-registrar --cluster k7f3q2m9 --verbs withdraw,restore forced    the forced command of a restricted key

An answer is {"ok": …} or {"error": {"type", "message"}}. The driver may be left out where only one is set up.
`forced` takes one of the calls above from SSH_ORIGINAL_COMMAND, and neither cluster nor more verbs from it.
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


def main(argv: Optional[List[str]] = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.umask(0o022)  # vendors that run as somebody else read what is written here
    if arguments[:1] == ["--driver"] and arguments[2:] == ["rpc"]:  # the hot path: no argparse
        return serve(Service(root(), arguments[1]), sys.stdin, sys.stdout)
    from .shell import by_hand  # argparse: 2 ms

    return by_hand(arguments)


if __name__ == "__main__":
    sys.exit(main())
