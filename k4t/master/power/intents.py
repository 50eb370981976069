"""Intents: what another machine, or a monitor, wants the master to do when it is awake. Small, signed, done once.

One line (`signed`, `backup.envelope`) whose text is canonical JSON, final:

    {"format":1,"cluster":ID,"id":HEX16,"at":TIME,"expires":TIME,"who":TEXT,"action":ACTION,"note":TEXT,…}

ACTION is apply; scale (with "app" and "replicas"); restart (with "app" and "replica"); drain, uncordon, dead, back,
prune, node-on or node-off (with "node"); or stay: not to go off again this time. Times are RFC 3339 UTC. A k4t that
does not know an action puts it aside, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from k4t.errors import Usage
from k4t.master.power import signed
from k4t.master.power.signed import Refused, Trust
from k4t.model.value import value
from k4t.tree.values import NAME, NAME_MAX

if TYPE_CHECKING:
    from k4t.master.backup.keys import Keys

FORMAT = 1
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "apply": (),
    "scale": ("app", "replicas"),
    "restart": ("app", "replica"),
    "drain": ("node",),
    "uncordon": ("node",),
    "dead": ("node",),
    "back": ("node",),
    "prune": ("node",),
    "node-on": ("node",),
    "node-off": ("node",),
    "stay": (),
}
LIFE = timedelta(days=7)
MAX_LIFE = timedelta(days=31)
MAX_REPLICAS = 100_000
MAX_NOTE = 200
MAX_WHO = 100
ID = re.compile(r"[0-9a-f]{16}")
_COMMON = ("format", "cluster", "id", "at", "expires", "who", "action", "note")


@value
class Intent:
    """`name`: of the app or node; `replicas`: of scale alone; `replica`, as containers are called, of restart alone."""

    id: str
    cluster: str
    at: str
    expires: str
    who: str
    action: str
    name: str = ""
    replicas: int = 0
    note: str = ""
    replica: str = ""

    @property
    def words(self) -> str:
        """As it would be given on a command line: “scale web 4”, “restart web 1”."""
        number = (str(self.replicas),) if self.action == "scale" else ()
        return " ".join(word for word in (self.action, self.name, self.replica, *number) if word)


def made(
    action: str,
    *,
    id: str,
    cluster: str,
    who: str,
    at: datetime,
    name: str = "",
    replicas: int = 0,
    replica: str = "",
    note: str = "",
) -> Intent:
    """A new one, as the line asks. Raises Usage for what none can be."""
    found = Intent(
        id,
        cluster,
        _time(at),
        _time(at + LIFE),
        who[:MAX_WHO],
        action,
        name,
        replicas,
        note.strip()[:MAX_NOTE],
        replica,
    )
    try:
        return _checked(_statement(found))
    except Refused as error:
        raise Usage(f"that can't be asked for: {error.message}") from None


def encode(intent: Intent, keys: Keys | None) -> bytes:
    """Unsigned where `keys` is None: for this machine's own disk."""
    return signed.encode(signed.INTENT, _statement(intent), keys)


def decode(data: bytes, name: str, trust: Trust, now: datetime, *, unsigned: bool = False) -> Intent:
    """`name`: of the file, without its end; it must be the id. Raises Refused, as `signed.decode`, and for what is
    unknown, incomplete, out of bounds or too old."""
    found = _checked(signed.decode(signed.INTENT, data, trust, unsigned=unsigned))
    if found.id != name:
        raise Refused(f"it calls itself {found.id}: it was copied or renamed")
    if found.at < trust.since:
        raise Refused(f"it was queued at {found.at}, for the master that this one has replaced at {trust.since}")
    if now > _parsed(found.expires):
        raise Refused(f"it has expired: it was queued at {found.at}, to be done by {found.expires}")
    return found


def expired(intent_expires: str, now: datetime) -> bool:
    """Of a time that was checked, or "" for one that is not known."""
    try:
        return now > _parsed(intent_expires)
    except Refused:
        return True


def _statement(intent: Intent) -> dict[str, object]:
    found: dict[str, object] = {
        "format": FORMAT, "cluster": intent.cluster, "id": intent.id, "at": intent.at, "expires": intent.expires,
        "who": intent.who, "action": intent.action, "note": intent.note,
    }  # fmt: skip
    given = {"app": intent.name, "node": intent.name, "replicas": intent.replicas, "replica": intent.replica}
    return found | {key: given[key] for key in ACTIONS.get(intent.action, ())}


def _checked(found: Mapping[str, Any]) -> Intent:
    if found.get("format") != FORMAT:
        raise Refused("it is of another format: a newer k4t wrote it")
    action = found.get("action")
    if not isinstance(action, str) or action not in ACTIONS:
        raise Refused(f"it wants what this k4t does not know: {ascii(action)[:60]}")
    wanted = ACTIONS[action]
    if set(found) != {*_COMMON, *wanted}:
        raise Refused(f"it does not say what {action} needs, or says more")
    texts = {key: _text(found, key) for key in (*_COMMON[1:], *(key for key in wanted if key != "replicas"))}
    if not ID.fullmatch(texts["id"]):
        raise Refused("it has no proper id")
    _check_times(texts["at"], texts["expires"])
    name = texts.get("app", texts.get("node", ""))
    for one in (name, texts["replica"]) if "replica" in texts else (name,):
        if wanted and not (NAME.fullmatch(one) and len(one) <= NAME_MAX):
            raise Refused(f"it names {ascii(one)[:60]}, which is no name")
    return Intent(
        texts["id"], texts["cluster"], texts["at"], texts["expires"], texts["who"], action, name,
        _replicas(found) if "replicas" in wanted else 0, texts["note"], texts.get("replica", ""),
    )  # fmt: skip


def _text(found: Mapping[str, Any], key: str) -> str:
    text = found[key]
    if not isinstance(text, str) or len(text) > MAX_NOTE or not text.isprintable():
        raise Refused(f"it has no proper {key}")
    return text


def _replicas(found: Mapping[str, Any]) -> int:
    number = found["replicas"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_REPLICAS:
        raise Refused(f"it wants {ascii(number)[:60]} replicas: from 0 to {MAX_REPLICAS}")
    return number


def _check_times(at: str, expires: str) -> None:
    life = _parsed(expires) - _parsed(at)
    if not timedelta() < life <= MAX_LIFE:
        raise Refused(f"it would live from {at} to {expires}: at most {MAX_LIFE.days} days")


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refused(f"it has no proper time: {ascii(text)[:40]}") from None
