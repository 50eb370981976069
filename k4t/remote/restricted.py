"""The monitor's own key, which can take endpoints out and give them back, ask a master that is on how it is, and have
it look at its queue. What it may do stands in the line that a host has of it in `authorized_keys`: a forced command.

    restrict,command="/usr/local/bin/k4t-registrar --cluster ID --verbs withdraw,restore … forced" ssh-ed25519 … MARK
    restrict,command="… k4t --db DIR wake --forced ID" ssh-ed25519 … MARK

Of one mark there is one line in a file. `k4t.registrar.authorize`, which runs on the host, writes it.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from k4t import command
from k4t.command import Completed
from k4t.errors import ConnectionLost, K4tError, RegistrarMismatch, StepError, Usage
from k4t.model.hosts import Ssh
from k4t.model.participant import Kind
from k4t.remote.registrar import Place, Several, refusal, several_of, source
from k4t.remote.setup import COMMAND

if TYPE_CHECKING:
    from k4t.remote.transport import Transport

BY = "k4t-monitor"
"""Who it was, wherever withdrawals are listed; also where it was done with an ordinary login."""
VERBS = "withdraw,restore"
SUDO = r"sudo -n -- env \"SSH_ORIGINAL_COMMAND=$SSH_ORIGINAL_COMMAND\" "
"""In an option's quotes, for the login user's shell: one word, whatever is in it."""
PROBE, ROUSE = "k4t-probe", "k4t-rouse"
"""What may be asked of a master: how it is, and that it looks at its queue. No programs are called so."""
REMEDY = "k4t monitor authorize KEY.pub, on the master"
USAGE = 64
ANSWER_S = 20.0
_TYPE = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
_KEY = re.compile(r"ssh-ed25519 ([A-Za-z0-9+/]{68})(?: [ -~]*)?")
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f]')


def mark(cluster_id: str) -> str:
    """The comment by which a line is known."""
    return f"k4t-monitor-{cluster_id}"


def public_key(text: str) -> str:
    """“ssh-ed25519 AAAA…”, without its comment. Raises Usage for anything else, such as a line with options."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = _KEY.fullmatch(lines[0]) if len(lines) == 1 else None
    try:
        blob = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        blob = b""
    if found is None or not blob.startswith(_TYPE) or len(blob) != len(_TYPE) + 32:
        raise Usage("that is no public key of a monitor: one line, ssh-ed25519 …", "k4t monitor key prints it")
    return f"ssh-ed25519 {found[1]}"


def fingerprint(key: str) -> str:
    """As ssh-keygen -l shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def forced_line(key: str, cluster_id: str, argv: Sequence[str], *, sudo: bool = False) -> str:
    """A line of authorized_keys (sshd(8)) by which this key runs just that; `sudo`: as root, which is told what was
    asked for all the same. Raises Usage for a command that can't stand in one."""
    text = command.quote(argv)
    if bad := _UNSAFE.search(text):
        raise Usage(f"a forced command can't be written with {bad[0]!a} in it: {text}")
    return f'restrict,command="{SUDO if sudo else ""}{text}" {key} {mark(cluster_id)}'


def registrar_argv(cluster_id: str) -> list[str]:
    """What the key may do at gateways and DNS servers. COMMAND is the newest registrar there, whoever installed it."""
    return [COMMAND, "--cluster", cluster_id, "--verbs", VERBS, "--by", BY, "forced"]


def login(ssh: Ssh, key: str) -> Ssh:
    """With this key and no other; what it runs becomes root by itself where that is needed."""
    return dataclasses.replace(ssh, key=key, sudo=False)


def several(
    transport: Transport,
    driver: str,
    verb: Literal["withdraw", "restore"],
    places: Sequence[Place],
    why: str,
    *,
    kind: Kind,
    name: str,
) -> Several:
    """As a participant's `several`, by the forced command. Raises what a registrar's answer stands for."""
    argv = ["k4t-registrar", "--driver", driver, verb, "--many", f"--why={why}"]
    lines = "".join(f"{app} {ip} {port}\n" for app, ip, port in places)
    done = transport.run(argv, input=lines.encode(), timeout_s=ANSWER_S, bare=True)
    try:
        answer = json.loads(done.stdout)
        if "ok" in answer:
            return several_of(answer["ok"])
        error = answer["error"]
        told: K4tError = refusal(error["type"], error["message"], transport.host, {"kind": kind, "name": name})
    except (ValueError, KeyError, TypeError):
        told = _no_answer(transport.host, done, kind, name)
    raise told


def _no_answer(host: str, done: Completed, kind: Kind, name: str) -> K4tError:
    if done.exit_status is None:
        return ConnectionLost("the registrar's answer was lost: in doubt", host=host)
    if done.exit_status in (USAGE, 127):
        return RegistrarMismatch(
            f"its registrar does not do that: {done.words()}", f"k4t {kind} install {name}", host=host
        )
    return StepError(f"the monitor's key runs something else there: {done.words()}", REMEDY, host=host)


# --- who may ---------------------------------------------------------------------------------------------------------


def authorize(transport: Transport, cluster_id: str, line: str, needed: str = "") -> str:
    """Have the user that this connection logs in as take the line, in the place of an older one of its mark; "" takes
    that away. `needed`: a program that must be there. What was done, in words. Raises StepError."""
    return told(transport.run(editing(cluster_id, line, needed=needed), timeout_s=ANSWER_S), transport.host)


def editing(cluster_id: str, line: str, *, user: str = "", needed: str = "") -> list[str]:
    """The command that does it, there or here. `user`: whose file; "" for who logs in."""
    return ["python3", "-IS", "-c", source("authorize.py"), mark(cluster_id), line, user, needed]


def told(done: Completed, host: str) -> str:
    if not done.ok:
        remedy = "install python3 (3.8 or newer) there" if done.exit_status == 127 else ""
        if COMMAND in done.words():
            remedy = "run k4t gateway install and k4t dns install first"
        raise StepError(f"authorized_keys is as it was: {done.words()}", remedy, host=host)
    return done.stdout.decode("utf-8", "replace").strip()
