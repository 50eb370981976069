"""Driver script: real commands in a directory, as an operator would write them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest

from k4t.registrar import spawn
from k4t.registrar.document import Certificate, Document, Endpoint, Epoch, Record, Route, make
from k4t.registrar.errors import VendorRefused
from tests.lab.processes import Process, wait_until
from tests.registrar.hands import A, B, Door, document

pytestmark = pytest.mark.unit

COMMAND = """\
#!/bin/sh
# VERB WORDS…: one line a thing in `table`, one line a call in `log`; fails where the file `fail` holds its words.
here={here}; verb=$1; shift
echo "$verb $*" >> "$here/log"
if [ -f "$here/fail" ] && grep -qF -- "$verb $*" "$here/fail"; then echo "no room for $*" >&2; exit 7; fi
touch "$here/table"
case $verb in
  add*) grep -qxF -- "$*" "$here/table" || echo "$*" >> "$here/table" ;;
  remove*) grep -vxF -- "$*" "$here/table" > "$here/table.new"; mv "$here/table.new" "$here/table" ;;
  list) grep -E '^[a-z.0-9-]+ [0-9a-f:.]+ ?[0-9]*$' "$here/table" ;;
esac
exit 0
"""


class Hands:
    """The operator's command, and what it was called for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = root / "change"
        self.program.write_text(COMMAND.format(here=root))
        self.program.chmod(0o755)

    def verbs(self, *more: str) -> dict[str, list[str]]:
        words = {
            "add-cluster": ["${app}"], "remove-cluster": ["${app}"],
            "add": ["${app}", "${ip}", "${port}"], "remove": ["${app}", "${ip}", "${port}"],
            "add-route": ["${app}", "${prefix}", "${domains}"], "remove-route": ["${app}", "${prefix}", "${domains}"],
            "list": [],
        }  # fmt: skip
        chosen = more or tuple(words)
        return {verb: [str(self.program), verb, *words[verb]] for verb in chosen}

    def calls(self) -> list[str]:
        """Since the last time, but for `list`."""
        log = self.root / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if line.strip() != "list"]

    @property
    def table(self) -> list[str]:
        return sorted((self.root / "table").read_text().splitlines())


@pytest.fixture
def hands(tmp_path: Path) -> Hands:
    return Hands(tmp_path)


@pytest.fixture
def door(tmp_path: Path, hands: Hands) -> Door:
    return Door(tmp_path, "script", {"verbs": hands.verbs()})


@pytest.fixture
def blind(tmp_path: Path, hands: Hands) -> Door:
    """The same, and it can't be asked what there is."""
    verbs = {verb: argv for verb, argv in hands.verbs().items() if verb != "list"}
    return Door(tmp_path, "script", {"verbs": verbs})


def web(*ips: str, made: Document | None = None, seq: int = 1, route: bool = True, **fields: object) -> Document:
    made = made or document()
    endpoints = tuple(Endpoint("web", ip, 80, container=f"c{ip}") for ip in ips)
    routes = made.routes if route else ()
    fields = {"endpoints": endpoints, "routes": routes, "seq": seq, **fields}
    return make(dataclasses.replace(made, **fields))  # type: ignore[arg-type]


def then(door: Door, old: Document, new: Document) -> dict[str, object]:
    new = dataclasses.replace(new, seq=old.seq + 1, parent=old.sha256, epoch=Epoch(1, "run1"))
    return door.publish(new, f"t{new.seq}")


def differences(door: Door, cluster: str = A) -> list[str]:
    found: list[str] = door.ok(op="observe", cluster=cluster)["differences"]
    return found


def test_cluster_endpoints_routes_and_back(door: Door, hands: Hands) -> None:
    """One call for each thing, in the order of the original; away in the reverse one; nothing twice."""
    first = web("10.0.0.1", "10.0.0.2")
    door.publish(first)
    assert hands.calls() == [
        "add-cluster web", "add web 10.0.0.1 80", "add web 10.0.0.2 80", "add-route web / example.com",
    ]  # fmt: skip
    assert differences(door) == []
    second = web("10.0.0.2", "10.0.0.3", seq=2, parent=first.sha256)
    door.publish(second, "t2")
    assert hands.calls() == ["add web 10.0.0.3 80", "remove web 10.0.0.1 80"]
    third = web(route=False, seq=3, parent=second.sha256, checks=())
    door.publish(third, "t3")
    assert hands.calls() == [
        "remove-route web / example.com", "remove web 10.0.0.2 80", "remove web 10.0.0.3 80", "remove-cluster web",
    ]  # fmt: skip
    assert hands.table == []


def test_add_and_remove_suffice(tmp_path: Path, hands: Hands) -> None:
    """Called for each endpoint; clusters and routes are the operator's own business."""
    door = Door(tmp_path, "script", {"verbs": hands.verbs("add", "remove")})
    first = web("10.0.0.1")
    door.publish(first)
    then(door, first, web())
    assert hands.calls() == ["add web 10.0.0.1 80", "remove web 10.0.0.1 80"]


def test_two_clusters_add_up(door: Door, hands: Hands) -> None:
    """What both need is called for once, and goes with the last of them."""
    first, other = web("10.0.0.1"), web("10.0.0.9", made=document(B))
    door.publish(first)
    hands.calls()
    door.publish(other)
    assert hands.calls() == ["add web 10.0.0.9 80"]
    then(door, first, web(route=False, checks=()))
    assert hands.calls() == ["remove web 10.0.0.1 80"]
    assert differences(door, B) == []


def test_by_hand_and_withdrawn(door: Door, hands: Hands) -> None:
    """Manual entries and withdrawals work as with any vendor."""
    door.publish(web("10.0.0.1", "10.0.0.2"))
    hands.calls()
    entry = {"cname": "web", "ip": "10.0.0.7", "port": 81}
    door.ok(op="manual", verb="add", by="me", **entry)
    door.ok(op="manual", verb="withdraw", cname="web", ip="10.0.0.1", port=80, by="me", why="it burns")
    assert hands.calls() == ["add web 10.0.0.7 81", "remove web 10.0.0.1 80"]


def test_drift_is_told_and_healed(door: Door, hands: Hands) -> None:
    """What the list lacks is added again; what it has under a name of ours is taken out; other names stay."""
    first = web("10.0.0.1", "10.0.0.2")
    door.publish(first)
    table = hands.root / "table"
    table.write_text(table.read_text().replace("10.0.0.2", "10.6.6.6") + "mail 10.0.0.99 25\n")
    assert differences(door) == [
        "web.main 10.0.0.2:80 is not listed", "web.main 10.6.6.6:80 is listed, and not published",
    ]  # fmt: skip
    hands.calls()
    then(door, first, first)
    assert hands.calls() == ["add web 10.0.0.2 80", "remove web 10.6.6.6 80"]
    assert differences(door) == []
    assert "mail 10.0.0.99 25" in hands.table


def test_a_command_that_fails(door: Door, hands: Hands) -> None:
    """Its words and exit status are the vendor's refusal; what was added before it is taken back; the next works."""
    first = web("10.0.0.1")
    door.publish(first)
    before = hands.table
    (hands.root / "fail").write_text("add web 10.0.0.3 80\n")
    said = then(door, first, web("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert not said["rendered"]
    assert str(said["problem"]).endswith("add web 10.0.0.3 80: no room for web 10.0.0.3 80 (exit status 7)")
    assert hands.table == before
    assert any("not rendered" in line for line in door.ok(op="check")["differences"])
    (hands.root / "fail").unlink()
    assert door.ok(op="render") == {"rendered": True, "problem": "", "pending": ""}
    assert differences(door) == []
    assert "web 10.0.0.3 80" in hands.table


def test_a_removal_that_fails(blind: Door, hands: Hands) -> None:
    """It holds up neither what is new nor its neighbours; what it belongs to stays; it is tried again."""
    first = web("10.0.0.1", "10.0.0.2")
    blind.publish(first)
    (hands.root / "fail").write_text("remove web 10.0.0.1 80\n")
    said = then(blind, first, web(route=False, checks=()))
    assert "no room for web 10.0.0.1 80" in str(said["problem"])
    assert hands.table == ["web", "web 10.0.0.1 80"]
    (hands.root / "fail").unlink()
    hands.calls()
    blind.ok(op="render")
    assert hands.calls() == ["remove web 10.0.0.1 80", "remove-cluster web"]


def test_without_a_list_what_was_done_counts(blind: Door, hands: Hands) -> None:
    """A change by hand is not seen; where the memory is removed, everything is told again."""
    first = web("10.0.0.1")
    blind.publish(first)
    (hands.root / "table").write_text("")
    assert differences(blind) == []
    (hands.root / "var/lib/k4t/registrar/script/done.json").unlink()
    assert differences(blind) == [
        "cluster web.main was not told", "web.main 10.0.0.1:80 was not told", "route example.com/ of web was not told",
    ]  # fmt: skip
    then(blind, first, first)
    assert differences(blind) == []
    assert hands.table == ["web", "web / example.com", "web 10.0.0.1 80"]


def test_cut_short(blind: Door, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registrar is killed between two calls: what may have been done is done again, or taken back if it is no
    longer wanted; never forgotten."""
    first = web("10.0.0.1", "10.0.0.2")
    run, killed = spawn.run, list[list[str]]()

    def dies(argv: list[str], timeout_s: float) -> str:
        said = run(argv, timeout_s)
        if argv[-2:] == ["10.0.0.2", "80"] and not killed:
            killed.append(argv)
            monkeypatch.setattr("k4t.registrar.files.write_json", lambda *_: None)  # nothing is written any more
            raise KeyboardInterrupt
        return said

    monkeypatch.setattr(spawn, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        blind.publish(first)
    monkeypatch.undo()
    hands.calls()
    blind.ok(op="render")
    assert hands.calls() == [
        "add-cluster web", "add web 10.0.0.1 80", "add web 10.0.0.2 80", "add-route web / example.com",
    ]  # fmt: skip
    assert hands.table == ["web", "web / example.com", "web 10.0.0.1 80", "web 10.0.0.2 80"]


def test_a_route_that_goes_to_another_app(tmp_path: Path, hands: Hands) -> None:
    """Where the removal names no app, it would take out the new one: it isn't called."""
    verbs = hands.verbs()
    verbs["remove-route"] = [str(hands.program), "remove-route", "${prefix}", "${domains}"]
    door = Door(tmp_path, "script", {"verbs": verbs})
    first = web("10.0.0.1")
    door.publish(first)
    hands.calls()
    then(door, first, web("10.0.0.1", routes=(Route("api", domains=("example.com",)),)))
    assert hands.calls() == ["add-cluster api", "add-route api / example.com"]


def test_what_no_command_is_told_of_is_refused(door: Door, tmp_path: Path) -> None:
    """TLS, a port of its own, weights …: at prepare, by name; a command that names the variable changes it."""
    asked = {
        "tls": Route("web", tls="site"), "listen, udp": Route("web", listen=53, protocol="udp"),
        "redirect": Route("web", redirect="https"), "strip-prefix": Route("web", prefix="/a", strip_prefix=True),
        "affinity": Route("web", affinity="cookie"), "weight": Route("web", weight=3),
        'upstream="h2c"': Route("web", upstream="h2c"),
    }  # fmt: skip
    chain, key = tmp_path / "a.pem", tmp_path / "a.key"
    chain.touch()
    key.touch()
    pair = (Certificate("site", chain_path=str(chain), key_path=str(key)),)
    for words, route in asked.items():
        made = web("10.0.0.1", routes=(route,), certificates=pair)
        kind, said = door.error(**door.prepare(made))
        assert (kind, said) == (
            "vendor-refused", f"a route of web asks for {words}, which no <script> of this gateway is told of",
        )  # fmt: skip
    verbs = Hands(tmp_path).verbs()
    verbs["add-route"] += ["${tls}", "${chain}", "${key}", "${listen}", "${weight}"]
    told = Door(tmp_path, "script", {"verbs": verbs})
    told.publish(web("10.0.0.1", routes=(Route("web", tls="site"),), certificates=pair))
    assert f"web / * aaaa1111/site {chain} {key}" in [line.rstrip() for line in Hands(tmp_path).table]


def test_commands_that_are_wrong(tmp_path: Path, hands: Hands) -> None:
    """Unknown verbs and variables, half a pair, a program that isn't there: refused when they are set up."""
    door = Door(tmp_path, "script")
    right = hands.verbs("add", "remove")
    wrong = {
        "a gateway has no verb 'adds'; it has add-cluster, remove-cluster, add, remove, add-route, remove-route, list,"
        " check": {**right, "adds": ["true"]},
        "verb add has no ${name}; it has app, port_name, pool, protocol, ip, port, address":
            {**right, "add": ["true", "${name}"]},
        "verbs add and remove go together, and are needed": {"add": ["true"]},
        "verbs add-route and remove-route go together": {**right, "add-route": ["true"]},
        "verb list has no ${app}; it has none": {**right, "list": ["true", "${app}"]},
        "verb add has no ${}; it has app": {**right, "add": ["true", "${app"]},
    }  # fmt: skip
    for words, verbs in wrong.items():
        assert words in door.error(op="install", config={"verbs": verbs})[1]
    missing = {**right, "add": ["/no/such/program"]}
    assert (
        door.error(op="install", config={"verbs": missing})[1] == "verb add: there is no program /no/such/program here"
    )


def test_the_check_command_comes_first(tmp_path: Path, hands: Hands) -> None:
    """It is asked at prepare: where it says no, nothing is staged and nothing called."""
    verbs = {**hands.verbs(), "check": ["sh", "-c", "echo disk is full >&2; exit 3"]}
    door = Door(tmp_path, "script", {"verbs": verbs})
    assert door.error(**door.prepare(web("10.0.0.1")))[1].endswith("disk is full (exit status 3)")
    assert hands.calls() == []


def test_a_command_that_hangs(tmp_path: Path, hands: Hands) -> None:
    """It is killed with all that it started; the refusal says how long that took."""
    verbs = {**hands.verbs("add", "remove"), "add": ["sh", "-c", f"sleep 987 & echo $! > {tmp_path}/pid; wait"]}
    door = Door(tmp_path, "script", {"verbs": verbs, "timeout_s": 2})
    began_s = time.monotonic()
    said = door.publish(web("10.0.0.1"))
    assert str(said["problem"]) == "sh took longer than 2 s, and was killed"
    assert time.monotonic() - began_s < 60
    pid = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: Process.of(pid) is None, timeout_s=30), "its child lives on"


def test_a_command_that_leaves_a_daemon(tmp_path: Path) -> None:
    """One that starts what is meant to stay, and ends, has done its work: it isn't waited for, nor killed."""
    began_s = time.monotonic()
    spawn.run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid"], 30.0)
    assert time.monotonic() - began_s < 25
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_command_that_talks_without_end() -> None:
    """Its output is bounded."""
    with pytest.raises(VendorRefused, match="yes says more than 8388608 bytes"):
        spawn.run(["yes"], 30.0)


def test_a_list_that_is_none(tmp_path: Path, hands: Hands) -> None:
    """Line and words of what can't be read; nothing is called then."""
    door = Door(tmp_path, "script", {"verbs": {**hands.verbs(), "list": ["echo", "web 10.0.0.1"]}})
    said = door.publish(web("10.0.0.1"))
    assert said["problem"] == "line 1 of what list says is no `NAME IP PORT`: 'web 10.0.0.1'"
    assert hands.calls() == []


def test_the_budget_of_all_calls(tmp_path: Path, hands: Hands) -> None:
    """What was done stays done, and the next publication goes on."""
    verbs = {**hands.verbs(), "add-cluster": ["sh", "-c", "sleep 0.3"], "remove-cluster": ["true"]}
    door = Door(tmp_path, "script", {"verbs": verbs, "budget_s": 0.2})
    said = str(door.publish(web("10.0.0.1"))["problem"])
    assert said == "the commands take longer than 0.2 s in all; the next publication goes on with web.main 10.0.0.1:80"
    Door(tmp_path, "script", {"verbs": {**verbs, "add-cluster": ["true"]}}).ok(op="render")
    assert hands.table == ["web / example.com", "web 10.0.0.1 80"]


def test_words_are_never_code(tmp_path: Path, hands: Hands) -> None:
    """A value is one argument, whatever it holds; `$${` is a plain `${`."""
    verbs = {**hands.verbs(), "add-route": [str(hands.program), "add-route", "${prefix}", "$${app}"]}
    door = Door(tmp_path, "script", {"verbs": verbs})
    door.publish(web("10.0.0.1", routes=(Route("web", prefix="/$(touch${IFS}x);'\"`id`"),)))
    assert "/$(touch${IFS}x);'\"`id` ${app}" in hands.table
    assert not (tmp_path / "x").exists()


def test_dns(tmp_path: Path, hands: Hands) -> None:
    """One call for each name and address, with zone, label, type and TTL; drift as with gateways; SRV is refused."""
    words = ["${name}", "${ip}"]
    add = ["sh", "-c", f'echo "$*" >> {tmp_path}/ttl; exec {hands.program} add "$1" "$2"', "sh", *words,
           "${zone}", "${label}", "${type}", "${ttl_s}"]  # fmt: skip
    verbs = {"add": add, "remove": [str(hands.program), "remove", *words], "list": [str(hands.program), "list"]}
    door = Door(tmp_path, "dnsscript", {"verbs": verbs, "zones": ["k4t.lab"]})
    made = document(kind="dns")
    records = (Record("web", "web", ttl_s=7), Record("k4t.lab", "web", to=("fd88::1",)))
    first = web("10.0.0.1", made=made, records=records)
    door.publish(first)
    assert hands.table == ["k4t.lab fd88::1", "web.k4t.lab 10.0.0.1"]
    assert (tmp_path / "ttl").read_text().splitlines() == [
        "k4t.lab fd88::1 k4t.lab @ AAAA 30", "web.k4t.lab 10.0.0.1 k4t.lab web A 7",
    ]  # fmt: skip
    (tmp_path / "table").write_text("k4t.lab fd88::1\nweb.k4t.lab 10.6.6.6\n")
    assert differences(door) == [
        "web.k4t.lab 10.0.0.1 is not listed", "web.k4t.lab 10.6.6.6 is listed, and not published",
    ]  # fmt: skip
    then(door, first, web("10.0.0.2", made=made, records=records))
    assert hands.table == ["k4t.lab fd88::1", "web.k4t.lab 10.0.0.2"]
    srv = web("10.0.0.1", made=document(B, kind="dns"), records=(Record("_http._tcp.x", "web", "srv", "main"),))
    assert "the script driver has no srv records" in door.error(**door.prepare(srv))[1]


def test_an_overwritten_route_comes_back(tmp_path: Path, hands: Hands) -> None:
    """What a failed publication had put in the place of something else: that is made again, not taken out."""
    verbs = hands.verbs()
    verbs["remove-route"] = [str(hands.program), "remove-route", "${prefix}", "${domains}"]
    door = Door(tmp_path, "script", {"verbs": verbs})
    first = web("10.0.0.1")
    door.publish(first)
    (hands.root / "fail").write_text("add-route web /b example.com\n")
    hands.calls()
    routes = (Route("api", domains=("example.com",)), Route("web", domains=("example.com",), prefix="/b"))
    then(door, first, web("10.0.0.1", routes=routes))
    assert hands.calls() == [
        "add-cluster api", "add-route api / example.com", "add-route web /b example.com",
        "remove-route /b example.com", "add-route web / example.com", "remove-cluster api",
    ]  # fmt: skip


def test_a_blank_registrar_on_a_host_that_serves(door: Door, hands: Hands) -> None:
    """What k4t kept is gone, what the commands made is not: one publication brings both in step by the list."""
    door.publish(web("10.0.0.1", "10.0.0.2"))
    shutil.rmtree(hands.root / "var")
    blank = Door(hands.root, "script", {"verbs": hands.verbs()})
    assert blank.ok(op="observe", cluster=A)["document"] is None
    hands.calls()
    blank.publish(web("10.0.0.2", "10.0.0.3"))
    assert hands.table == ["web", "web / example.com", "web 10.0.0.2 80", "web 10.0.0.3 80"]
    assert differences(blank) == []


def test_a_thousand_endpoints(tmp_path: Path) -> None:
    """What k4t itself does for each is little: no call is made twice, and none is forgotten, in a bounded time."""
    count = tmp_path / "count"
    verbs = {
        "add": ["sh", "-c", f"echo + >> {count}", "", "${ip}"],
        "remove": ["sh", "-c", f"echo - >> {count}", "", "${ip}"],
    }
    door = Door(tmp_path, "script", {"verbs": verbs})
    ips = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(1000)]
    first = web(*ips)
    door.publish(first)
    assert count.read_text().count("+") == 1000
    then(door, first, web(*ips[500:]))
    assert count.read_text().count("-") == 500
    assert differences(door) == []
