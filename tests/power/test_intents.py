"""Intents: pinned on disk, done once, and never by anybody's word but that of a certified key."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k4t.errors import K4tError, Usage
from k4t.master.backup import envelope
from k4t.master.power import announce, intents, signed
from k4t.master.power.announce import Off
from k4t.master.power.intents import Intent
from k4t.master.power.memory import BEGUN, DONE, KEPT, Entry, Memory, kept_of, to_do
from k4t.master.power.queue import HERE, judged
from k4t.master.power.signed import Refused, Trust
from tests.backup.trees import Cluster

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FIXED = Cluster(
    private=bytes(range(32)),
    machine=bytes(range(32, 64)),
    identity="AGE-SECRET-KEY-13A4UZPP3QGHQKEPF7CN47QVQN23V6W0VQ7K8CSE9758T7L8YA9UQYJHRW3",
)
TRUST = Trust(FIXED.id, FIXED.key)
ALTERATIONS = 500
OFF = Off(FIXED.id, "k4t-master", "root@k4t-master", "2026-11-20T12:00:00Z", "after apply")


def intent(action: str = "scale", *, number: int = 0, **more: object) -> Intent:
    told: dict[str, object] = {"note": "cpu 91 % – “hot”"}
    told |= {"name": "node1"} if "node" in intents.ACTIONS[action] else {}
    told |= {"name": "web", "replicas": 4} if action == "scale" else {}
    told |= {"name": "web", "replica": "1"} if action == "restart" else {}
    return intents.made(
        action, id=f"{number:016x}", cluster=FIXED.id, who="root@zabbix", at=NOW,
        **{**told, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def queued(one: Intent, by: Cluster = FIXED, **more: object) -> bytes:
    return intents.encode(one, by.keys(**more))  # type: ignore[arg-type]


def golden(name: str, data: bytes) -> bytes:
    """The file, written anew with K4T_WRITE_CASES=1: other machines and other versions read these."""
    path = GOLDEN / name
    if os.environ.get("K4T_WRITE_CASES"):
        path.write_bytes(data)
    return path.read_bytes()


# --- pinned ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", intents.ACTIONS)
def test_an_intent_is_these_bytes(action: str) -> None:
    """Signed with fixed keys, and read back as what it was."""
    one = intent(action)
    data = queued(one)
    assert data == golden(f"intent-{action}.json", data)
    assert intents.decode(data, one.id, TRUST, NOW) == one


def test_an_intent_of_this_machine_is_these_bytes() -> None:
    """Unsigned, since only root of the master can write there."""
    data = intents.encode(intent(), None)
    assert data == golden("intent-unsigned.json", data)
    assert intents.decode(data, "0" * 16, TRUST, NOW, unsigned=True) == intent()


def test_off_on_purpose_is_these_bytes() -> None:
    """What a monitor reads."""
    for name, keys in (("off", FIXED.keys()), ("off-unsigned", None)):
        data = announce.encode(OFF, keys)
        assert data == golden(name, data)
        assert announce.decode(data, TRUST if keys else Trust(FIXED.id)) == OFF


# --- refused ---------------------------------------------------------------------------------------------------


def altered(data: bytes, seed: int) -> Iterator[bytes]:
    """Bits flipped, bytes cut off, taken out, doubled and put in."""
    chance = random.Random(seed)  # noqa: S311 - the same at every run
    for _ in range(ALTERATIONS):
        at = chance.randrange(len(data))
        how = chance.randrange(5)
        yield (
            data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
            data[:at],
            data[:at] + data[at + chance.randint(1, 9) :],
            data[:at] + data[at : at + 9] + data[at:],
            data[:at] + bytes([chance.randrange(256)]) + data[at:],
        )[how]


def test_altered_ones_are_refused() -> None:
    """Hundreds, of every kind of intent and of announcements: not one is taken for what it was, or for another."""
    for number, action in enumerate(intents.ACTIONS):
        data = queued(intent(action))
        for one in altered(data, number):
            if one != data:
                with pytest.raises(Refused):
                    intents.decode(one, "0" * 16, TRUST, NOW)
    data = announce.encode(OFF, FIXED.keys())
    for one in altered(data, 77):
        if one != data:
            with pytest.raises(Refused):
                announce.decode(one, TRUST)


def test_forged_ones_are_refused() -> None:
    """Not signed; by a key that nobody certified, or another cluster, or that is certified for copies alone; a text or
    a signature put beside another certificate; a signature that was given for something else."""
    other = Cluster(id=FIXED.id)
    good = json.loads(queued(intent()))
    theirs = json.loads(queued(intent(number=1), other))
    forged = {
        "not signed": intents.encode(intent(), None),
        "not certified": queued(intent(), other),
        "of another cluster": queued(intent(), cluster="othercluster"),
        "for copies alone": queued(intent(), uses=("snapshots",)),
        "their text, our signature": line({**good, "intent": theirs["intent"]}),
        "their key, our certificate": line({**theirs, "certificate": good["certificate"]}),
        "their certificate, certified by us": line({**theirs, "certified": good["certified"]}),
        "signed as an announcement": line({**good, **only(announce.encode(OFF, FIXED.keys()), "signature")}),
        "an announcement": announce.encode(OFF, FIXED.keys()),
        "half signed": line({**good, "signature": ""}),
        "a list": b"[]\n",
        "empty": b"",
        "no line": queued(intent()).rstrip(b"\n"),
        "two lines": queued(intent()) * 2,
        "long": queued(intent()).rstrip(b"\n") + b" " * 9000 + b"\n",
        "deep": b"[" * 3000 + b"\n",
    }
    for what, data in forged.items():
        with pytest.raises(Refused) as refused:
            intents.decode(data, "0" * 16, TRUST, NOW)
        assert refused.value.message.startswith(("it ", "its ", "the key")), what


def line(content: dict[str, object]) -> bytes:
    return envelope.canonical(content).encode() + b"\n"


def only(data: bytes, key: str) -> dict[str, object]:
    return {key: json.loads(data)[key]}


def test_what_it_may_not_say_is_refused_though_it_is_signed() -> None:
    """An action that is unknown, more or less than the action needs, numbers and names out of bounds, a time that is
    none, a life that is too long: a key that is certified for intents can ask for nothing else."""
    good = json.loads(json.loads(queued(intent()))["intent"])
    bad: list[dict[str, object]] = [
        {"action": "exec"}, {"action": ["scale"]}, {"format": 2}, {"format": "1"}, {"replicas": -1}, {"replicas": True},
        {"replicas": 10**9}, {"replicas": "4"}, {"replicas": 4.0}, {"app": "../web"}, {"app": "a" * 41}, {"app": 1},
        {"id": "x"}, {"id": "0" * 17}, {"at": "yesterday"}, {"expires": "2027-11-20T12:00:00Z"},
        {"expires": "2026-11-20T11:00:00Z"}, {"note": "a\nb"}, {"note": "a" * 201}, {"who": None}, {"more": 1},
        {"allow": ["remove-app"]}, {"cluster": "another1"}, {"node": "n1"}, {"replica": "1"},
    ]  # fmt: skip
    one = json.loads(json.loads(queued(intent("restart")))["intent"])
    for replica in ("", "../1", "A", "1" * 41, 1, None, ["1"]):
        data = signed.encode(signed.INTENT, {**one, "replica": replica}, FIXED.keys())
        with pytest.raises(Refused):
            intents.decode(data, "0" * 16, TRUST, NOW)
    for change in bad:
        data = signed.encode(signed.INTENT, {**good, **change}, FIXED.keys())
        with pytest.raises(Refused):
            intents.decode(data, "0" * 16, TRUST, NOW)
    for key in good:
        data = signed.encode(signed.INTENT, {name: one for name, one in good.items() if name != key}, FIXED.keys())
        with pytest.raises(Refused):
            intents.decode(data, "0" * 16, TRUST, NOW)


def test_an_old_one_is_refused() -> None:
    """After seven days nobody waits for it any more."""
    data = queued(intent())
    assert intents.decode(data, "0" * 16, TRUST, NOW + timedelta(days=7)) == intent()
    with pytest.raises(Refused, match="has expired"):
        intents.decode(data, "0" * 16, TRUST, NOW + timedelta(days=7, seconds=1))


def test_what_was_queued_for_the_master_before_is_refused() -> None:
    """One that took over doesn't know what was done: a hacked node could show it all again."""
    data = queued(intent())
    assert intents.decode(data, "0" * 16, Trust(FIXED.id, FIXED.key, "2026-11-20T12:00:00Z"), NOW) == intent()
    with pytest.raises(Refused, match="for the master that this one has replaced"):
        intents.decode(data, "0" * 16, Trust(FIXED.id, FIXED.key, "2026-11-20T12:00:01Z"), NOW)


def test_a_copy_under_another_name_is_refused() -> None:
    """The id is the file's name."""
    with pytest.raises(Refused, match="calls itself"):
        intents.decode(queued(intent()), "1" * 16, TRUST, NOW)


def test_nothing_can_be_asked_for_that_would_be_refused() -> None:
    """Said where it is queued."""
    for wrong in ({"name": "no/name"}, {"replicas": 10**9}, {"note": "a\nb"}):
        with pytest.raises(Usage):
            intent(**wrong)


def test_without_recovery_xml_nothing_on_a_host_counts() -> None:
    """There is no key to check it by; what lies here counts."""
    with pytest.raises(Refused, match="has no recovery"):
        intents.decode(queued(intent()), "0" * 16, Trust(FIXED.id), NOW)
    with pytest.raises(Refused, match="not signed"):
        intents.decode(intents.encode(intent(), None), "0" * 16, Trust(FIXED.id), NOW)


def test_an_announcement_counts_by_its_signature() -> None:
    """A hacked gateway can't keep a monitor quiet; a cluster that has no key yet has no choice."""
    with pytest.raises(Refused):
        announce.decode(announce.encode(OFF, None), TRUST)
    assert announce.decode(announce.encode(OFF, None), Trust(FIXED.id)) == OFF
    with pytest.raises(Refused):
        announce.decode(announce.encode(OFF, None), Trust("another1"))


# --- the queue -------------------------------------------------------------------------------------------------


def test_one_that_lies_in_several_places_is_one() -> None:
    """Oldest first; what is no intent is named with its place; one without a signature counts here alone."""
    first, second = intent("drain", number=2), intent("apply", number=1)
    plain = intents.encode(intent("dead", number=3), None)
    found = judged(
        {
            HERE: {"3".zfill(16): plain},
            "gw1": {first.id: queued(first), second.id: queued(second)},
            "n1": {first.id: queued(first), "3".zfill(16): plain, "4".zfill(16): b"{}\n"},
        },
        TRUST,
        NOW,
    )
    assert [(one.intent.words, one.places) for one in found.found] == [
        ("apply", ("gw1",)), ("drain node1", ("gw1", "n1")), ("dead node1", (HERE,)),
    ]  # fmt: skip
    assert [(one.place, one.name[-1]) for one in found.bad] == [("n1", "3"), ("n1", "4")]


# --- memory ----------------------------------------------------------------------------------------------------


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    """Whoever shows it again. One that was begun by a run that was killed is tried once more, and no third time."""
    memory, one = Memory(tmp_path), intent()
    assert to_do(memory.entries().get(one.id))
    memory.begin(one, NOW)
    assert to_do(Memory(tmp_path).entries()[one.id])
    begun = memory.begin(one, NOW)
    assert not to_do(Memory(tmp_path).entries()[one.id])
    memory.end(begun, DONE, 0, "", NOW)
    entry = Memory(tmp_path).entries()[one.id]
    assert (entry.result, entry.action, entry.tries) == (DONE, "scale web 4", 2)
    assert not to_do(entry)


def test_memory_is_bounded_and_forgets_nothing_that_can_be_replayed() -> None:
    """Entries go when their intent has expired; some of them stay to be read."""
    live = [Entry(f"live{n}", "apply", expires="2026-11-21T00:00:00Z") for n in range(KEPT)]
    old = [Entry(f"old{n}", "apply", expires="2026-11-01T00:00:00Z") for n in range(3 * KEPT)]
    kept = kept_of([*live, *old], NOW)
    assert [one.id for one in kept] == [one.id for one in [*live, *old[-KEPT:]]]


def test_a_damaged_memory_is_no_empty_one(tmp_path: Path) -> None:
    """Or what was done would be done again."""
    (tmp_path / ".k4t").mkdir()
    for data in ("", "{}", "[]", '{"intents":[{}]}', '{"intents":[{"id":"1"}]}'):
        (tmp_path / ".k4t" / "intents.done").write_text(data)
        with pytest.raises(K4tError, match="damaged"):
            Memory(tmp_path).entries()


def test_a_newer_ones_memory_is_read(tmp_path: Path) -> None:
    """Keys may be added."""
    memory = Memory(tmp_path)
    memory.begin(intent(), NOW)
    content = json.loads(memory.path.read_text())
    content["intents"][0]["more"] = 1
    memory.path.write_text(json.dumps(content))
    assert memory.entries()["0" * 16].result == BEGUN
