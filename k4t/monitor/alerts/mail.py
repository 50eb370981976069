"""An alert by e-mail: plain text, one recipient, threaded by what it goes on from (RFC 5322, 3.6.4), marked as made by
a machine (RFC 3834).

TLS by STARTTLS (RFC 3207) where the server offers it, at once on port 465. With a secret (`user:password`) the
certificate is checked, and no password goes over the network in the clear; without one TLS is taken as it comes, as
between mail servers. On this machine itself neither is asked for.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import format_datetime

from k4t.errors import StepError
from k4t.model.monitor import HERE, Alert, smtp_place
from k4t.monitor.alerts.bound import Bound
from k4t.monitor.alerts.message import Message, Sender, as_time, message_id, subject, text

IMPLICIT_TLS_PORT = 465
MAX_DOMAIN = 36
"""An id longer than a line would be encoded, and no reader finds its thread."""


def send(message: Message, sender: Sender, alert: Alert, secret: str, bound: Bound) -> None:
    """Raises StepError."""
    host, port = smtp_place(alert.smtp)
    mail = made(message, sender, alert)
    user, colon, password = secret.partition(":")
    if secret and not (user and colon and secret.isascii()):
        raise StepError(f"secret {alert.secret} is no login: it must be user:password, in ASCII")
    try:
        with _Server(host, port, bound, check=bool(secret) and host not in HERE) as server:
            if secret:
                if not server.is_private and host not in HERE:
                    raise StepError("it offers no STARTTLS: the password is not sent in the clear", "smtp=HOST:465")
                server.login(user, password)
            server.send_message(mail)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        if bound.is_over:
            raise StepError(f"it did not take the message within {bound.within_s:g} s") from None
        raise StepError(_words(error)) from None


def made(message: Message, sender: Sender, alert: Alert) -> EmailMessage:
    """The mail itself."""
    mail = EmailMessage()
    mail["Subject"] = subject(message, sender)
    mail["From"] = alert.sender or f"k4t@{socket.gethostname()}"
    mail["To"] = alert.mail
    mail["Date"] = format_datetime(as_time(message.at_s))
    domain = alert.sender.rpartition("@")[2] or socket.gethostname()
    domain = domain if len(domain) <= MAX_DOMAIN else "k4t.invalid"
    mail["Message-ID"] = f"<{message_id(message, sender)}@{domain}>"
    threads = [f"<{sender.cluster_id}.{one}@{domain}>" for one in message.threads]
    if threads:
        mail["In-Reply-To"] = threads[0]
        mail["References"] = " ".join(threads[:10])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text(message, sender), cte="quoted-printable")
    return mail


class _Server(smtplib.SMTP):
    """Connected, greeted, and private where the server knows how. Every socket is watched."""

    def __init__(self, host: str, port: int, bound: Bound, *, check: bool) -> None:
        self.is_private = port == IMPLICIT_TLS_PORT
        self._bound, self._tls = bound, _context(check=check)
        name = socket.gethostname()
        super().__init__(host, port, name if "." in name else "[127.0.0.1]", timeout=bound.step_s)
        try:
            self.ehlo()
            if not self.is_private and self.has_extn("starttls"):
                self.starttls(context=self._tls)
                self.ehlo()
                self.is_private = True
        except BaseException:
            self.close()
            raise

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((host, port), timeout)
        self._bound.watch(connection)
        return self._tls.wrap_socket(connection, server_hostname=host) if self.is_private else connection


def _context(*, check: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not check:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, said = next(iter(error.recipients.values()), (0, b""))
        return f"the recipient is refused: {code} {_text(said)}"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"the login is refused: {error.smtp_code} {_text(error.smtp_error)}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answers {error.smtp_code} {_text(error.smtp_error)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate can't be trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, smtplib.SMTPException):
        return f"it does not take it: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"can't be reached: {error.strerror}"
    return f"what it answers is no SMTP ({type(error).__name__})"


def _text(said: bytes | str) -> str:
    words = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return " ".join("".join(one if one.isprintable() else " " for one in words).split())[:200]
