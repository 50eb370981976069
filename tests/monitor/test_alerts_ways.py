"""Command, webhook, mail: told for real, bounded whatever the other side does, and no secret in any word."""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from k4t.errors import K4tError, SecretUnavailable
from k4t.model.monitor import Alert
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.alerts import mail, program
from k4t.monitor.alerts.bound import Bound
from k4t.monitor.alerts.deliver import deliver, label
from k4t.monitor.alerts.message import Item, Message, Sender, as_json, text
from k4t.tree.read import read_tree
from tests.authority import Authority
from tests.monitor.alert_servers import Hook, Post, closed_port, proxy, talker
from tests.monitor.world import NOW_S

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
PROD = Sender("prod", "k7f3q2m9")
SOON_S = 0.5
LONG_S = 20.0
"""A test machine may be slow; what never ends takes longer."""
SECRET = "open-sesame-42"  # noqa: S105 - a made-up one

FIRST, EARLIER = "0123456789ab.17.1795000000", "0123456789ab.16.1794999400"
MORNING, YESTERDAY = "0123456789ab.9.1794993000", "0123456789ab.2.1794910000"
ITEMS = (
    Item(
        "app", "web", "unhealthy", "worse", "critical", NOW_S - 600, "0 of 2 replicas are well", "k4t explain web",
        EARLIER,
    ),
    Item(
        "node", "n2", "host-off", "begun", "critical", NOW_S - 40,
        "off, or cut off: 10.88.0.12:22 does not answer within 10 s", "k4t node check n2", FIRST,
    ),
    Item(
        "node", "n3", "clock-skew", "passed", "warning", NOW_S - 90, "its clock is 3.1 s ahead", "", FIRST,
        ended_s=NOW_S - 30,
    ),
    Item(
        "backup", "n1", "backup-age", "over", "warning", NOW_S - 7200,
        "the newest copy is 2 h old; one is due every 60 s", "k4t backup", MORNING, ended_s=NOW_S - 20,
    ),
    Item(
        "node", "n1", "disk", "still", "warning", NOW_S - 90000, "its disk / is 87 % full, 12.6 GiB of 100 GiB left",
        "make room there", YESTERDAY, seen=False,
    ),
)  # fmt: skip
CAUSE = "node n2: host-off for 3 checks"
OUTCOMES = (
    Outcome(Action("node-gone", "withdraw", "n2", CAUSE), "done", NOW_S - 10, "3 endpoints at 2 members"),
    Outcome(Action("node-gone", "dead", "n2", CAUSE), "queued", NOW_S, "", "i-7"),
)
MESSAGE = Message(FIRST, NOW_S, ITEMS, OUTCOMES, critical=2, warning=1, first_s=NOW_S)


def told(alert: Alert, *, secret: str = SECRET, within_s: float = LONG_S, message: Message = MESSAGE) -> str:
    """ "" when it was taken, else why it was not."""
    try:
        deliver(message, PROD, alert, lambda _: secret, Bound(within_s))
    except K4tError as error:
        return error.words
    return ""


def as_text(path: Path, made: str) -> None:
    """Compared with what is there; K4T_WRITE_CASES=1 writes it."""
    if os.environ.get("K4T_WRITE_CASES"):
        path.write_text(made)
    assert path.read_text() == made


def test_the_json_is_what_the_page_says() -> None:
    """Programs are built on it: keys may be added, none is taken away."""
    made = json.dumps(as_json(MESSAGE, PROD), ensure_ascii=False, indent=2) + "\n"
    as_text(ROOT / "tests/monitor/golden/alert.json", made)


def test_the_text_is_what_the_page_says() -> None:
    """The mail that docs/alerts.md shows."""
    made = mail.made(MESSAGE, PROD, Alert(mail="ops@example.com", sender="k4t@example.com"))
    as_text(ROOT / "tests/monitor/golden/alert.eml", as_mail(made.as_bytes()))


def test_every_key_of_the_json_is_told() -> None:
    """And no other."""
    page = (ROOT / "docs/alerts.md").read_text()
    block = page[page.index('    {"version":1,"id"') : page.index("Keys may be added")]
    told = set(re.findall(r'"([a-z_]+)"', block)) - {"ok"}
    assert told == set(keys(as_json(MESSAGE, PROD)))


def test_the_mail_that_is_shown_is_one() -> None:
    """As it stands."""
    shown = (ROOT / "tests/monitor/golden/alert.eml").read_text()
    page = (ROOT / "docs/alerts.md").read_text()
    assert "".join(f"    {line}\n" if line else "\n" for line in shown.splitlines()) in page


def test_every_variable_of_a_command_is_told() -> None:
    """And no other."""
    page = (ROOT / "docs/alerts.md").read_text()
    told = set(re.findall(r"`(K4T_[A-Z_]+)`", page))
    assert told == {name for name in program._environment(as_json(MESSAGE, PROD)) if name.startswith("K4T_")}


def test_the_example_is_valid(tmp_path: Path) -> None:
    """As it stands."""
    (example,) = re.findall(r"```xml\n(.*?)```", (ROOT / "docs/alerts.md").read_text(), re.DOTALL)
    (tmp_path / "cluster.xml").write_text('<cluster name="prod" id="k7f3q2m9" format="1"/>\n')
    (tmp_path / "monitor.xml").write_text(example)
    (tmp_path / "secrets").mkdir()
    for name in ("smtp", "hook"):
        (tmp_path / "secrets" / f"{name}.age").write_text("x\n")
    found = read_tree(tmp_path)
    assert found.no_effect == ()
    assert [(label(one), one.level) for one in found.monitor.alerts] == [
        ("mail ops@example.com", "warning"),
        ("webhook https://hooks.example.com", "warning"),
        ("command page-somebody", "critical"),
    ]


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def as_mail(data: bytes) -> str:
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    heads = [f"{name}: {value}" for name, value in found.items() if name != "MIME-Version"]
    return "\n".join([*heads, "", found.get_content()])


# --- command ---------------------------------------------------------------------------------------------------------


def shell(script: str, **fields: object) -> Alert:
    return Alert(command=("sh", "-c", script), **fields)  # type: ignore[arg-type]


def test_a_command_reads_json_and_scripts_read_variables(tmp_path: Path) -> None:
    """In /, with nothing else of our environment."""
    os.environ["K4T_TEST_SECRET"] = SECRET
    try:
        assert told(shell(f"cat >{tmp_path}/in; env >{tmp_path}/env; pwd >{tmp_path}/pwd")) == ""
    finally:
        del os.environ["K4T_TEST_SECRET"]
    assert json.loads((tmp_path / "in").read_text()) == as_json(MESSAGE, PROD)
    env = (tmp_path / "env").read_text()
    assert "K4T_LEVEL=critical\n" in env
    assert "K4T_SUBJECT=[prod] CRITICAL: app web: unhealthy and 1 more\n" in env
    assert SECRET not in env
    assert (tmp_path / "pwd").read_text() == "/\n"


def test_a_command_that_reads_nothing_has_told_as_well() -> None:
    """However much there is to read."""
    items = [Item("node", f"n{number}", "disk", "begun", "warning", NOW_S, "x" * 9000) for number in range(20)]
    long = Message("a.1.1", NOW_S, tuple(items))
    assert told(Alert(command=("true",)), message=long) == ""
    assert told(shell("exec 0<&-; sleep 0.2"), message=long) == ""


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no such channel >&2; exit 3", "it ended with status 3: no such channel"),
        ("exit 1", "it ended with status 1"),
        ("kill -9 $$", "it ended with status -9"),
    ],
)
def test_a_command_that_fails_says_why(script: str, why: str) -> None:
    """Its last line."""
    assert told(shell(script)) == why


def test_a_command_that_is_not_there_is_named() -> None:
    """Or is no program."""
    assert told(Alert(command=("/no/such/tell",))) == "can't run /no/such/tell: No such file or directory"
    assert told(Alert(command=("/etc/passwd",))) == "can't run /etc/passwd: Permission denied"


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600",
        "trap '' TERM; while :; do sleep 1; done",
        "sleep 600 & sleep 600 & wait",
        "yes",
        "head -c 1000000000 /dev/zero; sleep 600",
    ],
    ids=["hangs", "ignores SIGTERM", "forks", "talks on and on", "writes 1 GB and hangs"],
)
def test_a_command_that_never_ends_is_ended_with_all_it_started(script: str, tmp_path: Path) -> None:
    """In its time and a little grace; nothing is left behind."""
    mark = tmp_path / "mark"
    began_s = time.monotonic()
    assert told(shell(f"echo $$ >{mark}; {script}"), within_s=1.0) == "sh took longer than 1 s"
    assert time.monotonic() - began_s < LONG_S
    assert gone(int(mark.read_text()))


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """Also when that holds its output open, and goes on talking."""
    mark = tmp_path / "mark"
    began_s = time.monotonic()
    assert told(shell(f"echo $$ >{mark}; yes & sleep 600 & exit 0")) == ""
    assert time.monotonic() - began_s < LONG_S / 2
    assert gone(int(mark.read_text()))


def test_a_command_may_say_a_lot() -> None:
    """Only the end of it is kept."""
    assert told(shell("head -c 300000000 /dev/zero; echo; echo full; exit 4"), within_s=60.0) == (
        "it ended with status 4: full"
    )


def gone(leader: int) -> bool:
    """A process that was killed may take a moment to die."""
    until_s = time.monotonic() + LONG_S
    while group_of(leader):
        if time.monotonic() >= until_s:
            return False
        time.sleep(0.02)
    return True


def group_of(leader: int) -> list[str]:
    """Who is still in a process group. What is dead and not collected yet doesn't count."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (directory / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(group) == leader and state != "Z":
            found.append(directory.name)
    return found


# --- webhook ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_webhook_gets_the_json_and_the_secret() -> None:
    """By POST, the secret as a bearer token."""
    with Hook() as hook:
        assert told(Alert(webhook=f"{hook.address}?team=ops", secret="hook")) == ""
    assert hook.got == [as_json(MESSAGE, PROD)]
    ((path, headers),) = hook.asked
    assert path == "/hook?team=ops"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert headers["user-agent"].startswith("k4t/")


def test_a_secret_may_be_the_whole_address() -> None:
    """As chat systems have it; monitor.xml names where it must lie."""
    with Hook() as hook:
        alert = Alert(webhook=f"http://127.0.0.1:{hook.port}", secret="hook")
        assert told(alert, secret=f"http://127.0.0.1:{hook.port}/services/{SECRET}") == ""
        assert told(alert, secret=f"http://elsewhere.example.com/{SECRET}") == (
            f"secret hook is an address, and not one on http://127.0.0.1:{hook.port}; "
            "name that place in monitor.xml: webhook="
        )
    ((path, headers),) = hook.asked
    assert path == f"/services/{SECRET}"
    assert "authorization" not in headers
    assert label(alert) == f"webhook http://127.0.0.1:{hook.port}"


@pytest.mark.parametrize("secret", ["two words", "line\r\nX-Injected: 1", "ümlaut"])
def test_a_secret_that_is_no_token_is_refused(secret: str) -> None:
    """Before anything is asked, and without showing it."""
    with Hook() as hook:
        assert told(Alert(webhook=hook.address, secret="hook"), secret=secret) == (
            "secret hook is no token: one word of ASCII; k4t secret set hook"
        )
    assert hook.asked == []


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (500, b"out of\n order", "answers 500 Internal Server Error: out of order"),
        (401, b"who is TOKEN?", "answers 401 Unauthorized: who is Bearer •••?"),
        (404, b"", "answers 404 Not Found"),
        (429, b"x" * 100_000, "answers 429 Too Many Requests: " + "x" * 200),
    ],
)
def test_what_a_webhook_answers_is_said(status: int, answer: bytes, why: str) -> None:
    """In one line, without the secret that it may say back."""
    with Hook(status, answer) as hook:
        assert told(Alert(webhook=hook.address, secret="hook")) == why


def test_no_redirect_is_followed() -> None:
    """To another host or the same: a secret would go along, and a POST becomes a GET."""
    with Hook() as other, Hook(302, b"", Location=f"{other.address}?secret=path") as hook:
        assert told(Alert(webhook=hook.address)) == (
            f"answers 302, elsewhere (http://127.0.0.1:{other.port}): write the address that takes it"
        )
    assert other.asked == []


def test_a_webhook_that_is_away_is_told_apart() -> None:
    """Refused, and no such name."""
    assert told(Alert(webhook=f"http://127.0.0.1:{closed_port()}/x")) == "can't be reached: Connection refused"
    assert told(Alert(webhook="http://nobody.invalid/x")).startswith("can't be reached: ")


@pytest.mark.parametrize(
    ("greeting", "drip"),
    [(b"", b""), (b"", b"H"), (b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\n", b"x")],
    ids=["says nothing", "no line end", "an error without end"],
)
def test_a_webhook_that_hangs_or_drips_is_left_in_time(greeting: bytes, drip: bytes) -> None:
    """No single read of a slow one ever times out; all of them together do."""
    began_s = time.monotonic()
    with talker(greeting, drip) as port:
        why = told(Alert(webhook=f"http://127.0.0.1:{port}/x"), within_s=SOON_S)
    assert why in ("no answer within 0.5 s", "it does not answer in time") or why.startswith("answers 500 Oh")
    assert time.monotonic() - began_s < LONG_S


@pytest.mark.parametrize(
    "drip", [b"X: y\r\n", b"Content-Length: 1000\r\n\r\nx"], ids=["headers without end", "a body without end"]
)
def test_a_webhook_that_took_it_and_talks_on_has_taken_it(drip: bytes) -> None:
    """Nobody listens for longer than there is time."""
    began_s = time.monotonic()
    with talker(b"HTTP/1.1 200 OK\r\n", drip) as port:
        assert told(Alert(webhook=f"http://127.0.0.1:{port}/x"), within_s=SOON_S) == ""
    assert time.monotonic() - began_s < LONG_S


def test_a_webhook_that_speaks_no_http_is_said_to() -> None:
    """An SSH server, say."""
    with talker(b"SSH-2.0-OpenSSH_9.2\r\n" * 10) as port:
        assert told(Alert(webhook=f"http://127.0.0.1:{port}/x")) == "what it answers is no HTTP (BadStatusLine)"


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the machine's authorities."""
    authority = Authority()
    with Hook().private(tmp_path, authority, "localhost") as hook:
        why = told(Alert(webhook=hook.address, secret="hook"))
        assert why.startswith("its certificate can't be trusted: ")
        assert hook.asked == []
        trusted(authority, tmp_path, monkeypatch)
        assert told(Alert(webhook=hook.address, secret="hook")) == ""
        assert "mismatch" in told(Alert(webhook=hook.address.replace("localhost", "127.0.0.1"), secret="hook"))
    assert len(hook.got) == 1


def test_the_proxies_of_the_environment_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For https the certificate is the webhook's own, not the proxy's."""
    authority = Authority()
    trusted(authority, tmp_path, monkeypatch)
    with Hook().private(tmp_path, authority, "hooks.example.com") as hook, proxy(hook.port) as (port, asked):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert told(Alert(webhook="https://hooks.example.com/hook", secret="hook")) == ""
        assert "mismatch" in told(Alert(webhook="https://other.example.com/hook", secret="hook"))
    assert asked == ["CONNECT hooks.example.com:443", "CONNECT other.example.com:443"]
    assert [path for path, _ in hook.asked] == ["/hook"]


def test_a_tls_server_that_says_nothing_is_left_in_time() -> None:
    """In the handshake."""
    began_s = time.monotonic()
    with talker(b"", b"\x16") as port:
        assert told(Alert(webhook=f"https://127.0.0.1:{port}/x"), within_s=SOON_S)
    assert time.monotonic() - began_s < LONG_S


def trusted(authority: Authority, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    (directory / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))


# --- mail ------------------------------------------------------------------------------------------------------------


def test_a_mail_says_the_essence_and_threads() -> None:
    """Subject, who it is from, what it goes on from, and that a machine made it."""
    with Post() as post:
        assert told(Alert(mail="ops@example.com", smtp=post.place, sender="k4t@example.com")) == ""
    ((sender, to, data),) = post.got
    assert (sender, to) == ("k4t@example.com", ["ops@example.com"])
    made = email.message_from_bytes(data, policy=email.policy.default)
    assert made["Subject"] == "[prod] CRITICAL: app web: unhealthy and 1 more"
    assert made["Message-ID"] == "<k7f3q2m9.0123456789ab.17.1795000000@example.com>"
    assert made["In-Reply-To"] == "<k7f3q2m9.0123456789ab.16.1794999400@example.com>"
    assert made["References"].split() == [
        "<k7f3q2m9.0123456789ab.16.1794999400@example.com>",
        "<k7f3q2m9.0123456789ab.9.1794993000@example.com>",
        "<k7f3q2m9.0123456789ab.2.1794910000@example.com>",
    ]
    assert made["Auto-Submitted"] == "auto-generated"
    assert made["Date"].datetime.timestamp() == NOW_S
    assert made.get_content_type() == "text/plain"
    assert made.get_content().replace("\r\n", "\n") == text(MESSAGE, PROD)


def test_no_line_of_a_mail_is_too_long_and_none_is_forged() -> None:
    """Whatever the words are; ids are never folded apart, however long the domain."""
    hostile = Item(
        "node", "n1", "disk", "begun", "critical", NOW_S, "ä" * 300, ".\nFrom x\r\n.\r\nQUIT", "0123456789ab.1.1"
    )
    message = Message("0123456789ab.1234567.1795000000", NOW_S, (hostile,) * 20, critical=20)
    with Post() as post:
        for sender in ("k4t@example.com", f"k4t@{'sub.' * 40}example.com"):
            assert told(Alert(mail="ops@example.com", smtp=post.place, sender=sender), message=message) == ""
    for _, _, data in post.got:
        assert max(map(len, data.splitlines())) < 200
        head = data.partition(b"\r\n\r\n")[0]
        assert b"=?" not in b"".join(line for line in head.splitlines() if b"<k7f3q2m9." in line)
        assert b"<k7f3q2m9.0123456789ab.1234567.1795000000@" in head
        made = email.message_from_bytes(data, policy=email.policy.default)
        assert "\n.\n" in made.get_content().replace("\r\n", "\n")


def test_a_login_goes_over_tls_that_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STARTTLS; the password is not sent to one that nobody vouches for."""
    monkeypatch.setattr(mail, "HERE", frozenset[str]())
    authority = Authority()
    login = f"k4t:{SECRET}"
    with Post.private(tmp_path, authority, "localhost", login=login, host="localhost") as post:
        alert = Alert(mail="ops@example.com", smtp=post.place, secret="smtp")
        assert told(alert, secret=login).startswith("its certificate can't be trusted: ")
        assert post.logins == []
        trusted(authority, tmp_path, monkeypatch)
        assert told(alert, secret=login) == ""
        assert post.logins == [login]
        why = told(alert, secret="k4t:wrong-one")
        assert why.startswith("the login is refused: 535 ")
        assert "wrong-one" not in why
    assert len(post.got) == 1


def test_port_465_is_private_from_the_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And checked in the same way."""
    monkeypatch.setattr(mail, "HERE", frozenset[str]())
    authority, login = Authority(), f"k4t:{SECRET}"
    with Post.private(tmp_path, authority, "localhost", login=login, host="localhost", implicit=True) as post:
        monkeypatch.setattr(mail, "IMPLICIT_TLS_PORT", post.controller.port)
        alert = Alert(mail="ops@example.com", smtp=post.place, secret="smtp")
        assert told(alert, secret=login).startswith("its certificate can't be trusted: ")
        trusted(authority, tmp_path, monkeypatch)
        assert told(alert, secret=login) == ""
    assert len(post.got) == 1


def test_a_password_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """But on this machine itself."""
    login = f"k4t:{SECRET}"
    with Post(login=login) as post:
        alert = Alert(mail="ops@example.com", smtp=post.place, secret="smtp")
        assert told(alert, secret=login) == ""
        monkeypatch.setattr(mail, "HERE", frozenset[str]())
        assert told(alert, secret=login) == (
            "it offers no STARTTLS: the password is not sent in the clear; smtp=HOST:465"
        )
    assert post.logins == [login]


def test_without_a_login_tls_is_taken_as_it_comes(tmp_path: Path) -> None:
    """As between mail servers: Debian's own have a certificate that nobody signed."""
    with Post.private(tmp_path, Authority(), "elsewhere.example.com") as post:
        assert told(Alert(mail="ops@example.com", smtp=post.place)) == ""
    assert len(post.got) == 1


def test_a_secret_that_is_no_login_is_refused() -> None:
    """Without showing it."""
    why = told(Alert(mail="ops@example.com", smtp=f"127.0.0.1:{closed_port()}", secret="smtp"))
    assert why == "secret smtp is no login: it must be user:password, in ASCII"


def test_what_a_mail_server_answers_is_said() -> None:
    """A recipient that it does not know; nobody there."""
    with Post(refuse="550 no such user here") as post:
        assert told(Alert(mail="ops@example.com", smtp=post.place)) == (
            "the recipient is refused: 550 no such user here"
        )
    assert told(Alert(mail="ops@example.com", smtp=f"127.0.0.1:{closed_port()}")) == (
        "can't be reached: Connection refused"
    )


@pytest.mark.parametrize(
    ("greeting", "drip"),
    [(b"", b""), (b"", b"2"), (b"220-wait\r\n", b"220-wait\r\n"), (b"220 hello\r\n", b"")],
    ids=["says nothing", "no line end", "a greeting without end", "only greets"],
)
def test_a_mail_server_that_hangs_or_drips_is_left_in_time(greeting: bytes, drip: bytes) -> None:
    """All of its answers together have their time."""
    began_s = time.monotonic()
    with talker(greeting, drip) as port:
        why = told(Alert(mail="ops@example.com", smtp=f"127.0.0.1:{port}"), within_s=SOON_S)
    assert why
    assert time.monotonic() - began_s < LONG_S


def test_a_mail_server_that_speaks_something_else_is_said_to() -> None:
    """An SSH server, say."""
    with talker(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        why = told(Alert(mail="ops@example.com", smtp=f"127.0.0.1:{port}"))
    assert why.startswith("it answers -1 ") or "no SMTP" in why or "does not take it" in why


# --- all of them -----------------------------------------------------------------------------------------------------


def test_a_secret_that_can_not_be_had_is_an_error_like_any_other() -> None:
    """Nothing is sent without it."""

    def fetch(name: str) -> str:
        raise SecretUnavailable(name, "secrets/hook.age", "no identity", "k4t secret recipients add")

    with Hook() as hook, pytest.raises(K4tError) as caught:
        deliver(MESSAGE, PROD, Alert(webhook=hook.address, secret="hook"), fetch)
    assert "hook" in str(caught.value)
    assert hook.asked == []


def test_whom_an_alert_tells_is_said_without_its_address() -> None:
    """It may be worth keeping."""
    assert label(Alert(webhook="https://x:y@hooks.example.com:8443/services/T0/B1/XYZ")) == (
        "webhook https://hooks.example.com:8443"
    )
    assert label(Alert(command=tuple(shlex.split("/usr/bin/tell --token XYZ")))) == "command tell"
    assert label(Alert(mail="ops@example.com")) == "mail ops@example.com"
