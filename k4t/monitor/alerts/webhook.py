"""An alert by HTTP: the message as JSON, by POST. Any 2xx says that it was taken.

The secret goes along as `Authorization: Bearer …`. Where the address itself is the secret, as chat systems have it, the
secret is the whole address: monitor.xml then names its beginning (`https://hooks.example.com`), and it must lie there.
Certificates are checked; no redirect is followed: a POST that becomes a GET tells nobody anything.
"""

from __future__ import annotations

import functools
import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from k4t import __version__
from k4t.errors import StepError
from k4t.model.monitor import Alert
from k4t.monitor.alerts.bound import Bound
from k4t.monitor.alerts.message import Message, Sender, as_json

MAX_ANSWER_BYTES = 2000
PORTS = {"http": 80, "https": 443}


def place(address: str) -> str:
    """As much of an address as may be shown: “https://hooks.example.com”."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def send(message: Message, sender: Sender, alert: Alert, secret: str, bound: Bound) -> None:
    """Raises StepError."""
    address, token = _where(alert, secret)
    data = json.dumps(as_json(message, sender), separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "User-Agent": f"k4t/{__version__}", "Accept": "*/*"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(address, data, headers, method="POST")  # noqa: S310 - http or https, see the schema
    try:
        _opener(bound).open(request, timeout=bound.step_s).close()  # what a 2xx goes on to say doesn't matter
    except urllib.error.HTTPError as error:
        with error:
            raise StepError(_refused(error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if bound.is_over:
            raise StepError(f"no answer within {bound.within_s:g} s") from None
        raise StepError(_words(error)) from None


def _where(alert: Alert, secret: str) -> tuple[str, str]:
    """The address, and the token."""
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise StepError(f"secret {alert.secret} is no token: one word of ASCII", f"k4t secret set {alert.secret}")
    if not secret.startswith(("http://", "https://")):
        return alert.webhook, secret
    if _origin(secret) != _origin(alert.webhook):
        message = f"secret {alert.secret} is an address, and not one on {place(alert.webhook)}"
        raise StepError(message, "name that place in monitor.xml: webhook=")
    return secret, ""


def _origin(address: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(address)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None
    return parts.scheme, "" if "@" in parts.netloc else parts.hostname or "", port


def _refused(error: urllib.error.HTTPError) -> str:
    if 300 <= error.code < 400:
        to = place(error.headers.get("Location", "") or "")
        return f"answers {error.code}, elsewhere ({to}): write the address that takes it"
    try:
        said = error.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError):
        said = ""
    words = " ".join("".join(one if one.isprintable() else " " for one in said).split())[:200]
    return f"answers {error.code} {error.reason}" + (f": {words}" if words else "")


def _words(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate can't be trusted: {reason.verify_message}"
    if isinstance(reason, TimeoutError):
        return "it does not answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return f"can't be reached: {reason.strerror}"
    return f"what it answers is no HTTP ({type(reason).__name__})"


# --- connections that end in time ------------------------------------------------------------------------------------


class _Plain(http.client.HTTPConnection):
    def __init__(self, *args: Any, bound: Bound, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bound = bound

    def connect(self) -> None:
        super().connect()
        self._bound.watch(self.sock)


class _Tls(_Plain):
    default_port = 443

    def connect(self) -> None:
        super().connect()  # through the proxy where there is one
        name = getattr(self, "_tunnel_host", None) or self.host
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=name)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, bound: Bound) -> None:
        super().__init__()
        self._bound = bound

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Plain, bound=self._bound), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, bound: Bound) -> None:
        super().__init__()
        self._bound = bound

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Tls, bound=self._bound), req)


def _opener(bound: Bound) -> urllib.request.OpenerDirector:
    """With the proxies of the environment (http_proxy …), no redirects, and no other schemes."""
    opener = urllib.request.OpenerDirector()
    for one in (
        urllib.request.ProxyHandler(), _Http(bound), _Https(bound), urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.UnknownHandler(),
    ):  # fmt: skip
        opener.add_handler(one)
    return opener
