"""A bare machine becomes the master: with the recovery kit, an SSH key, and what the hosts keep.

    ask all that may have copies → the newest good one → a fresh directory → ask all hosts of that tree, under their
    locks: is anything newer live? → this machine may sign → in place by one rename → every host is told

Nobody is trusted for being asked: a host must present a key of the kit, a copy must be signed by a key that the
cluster's key certifies. What is said of copies that were passed over, and of hosts that did not answer, goes into the
result. Until the rename nothing is changed but this machine's own signing key.

Killed before the rename, it is run again; after it, the tree is in place, and hosts that were not told yet who is the
master hear it from the next apply. Failpoints: those of `swap`, `recover:certified`, `recover:placed`, `recover:told`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from k4t.errors import BadCopy, InvalidTree, K4tError, Unsafe, Usage
from k4t.failpoints import reach
from k4t.master import lineage, record
from k4t.master.backup import keys, kits, reading, restore, unpack
from k4t.master.backup.choose import Candidate, Live, newest_first, older_than_live
from k4t.master.backup.judge import Trust
from k4t.master.backup.kit import Kit, KitHost
from k4t.master.backup.reading import Folder, Place, Remote, Shelf
from k4t.master.backup.swap import Fresh, tidied
from k4t.master.backup.target import Target
from k4t.master.history import WorkingCopy
from k4t.master.planning import serials
from k4t.master.planning.lineage import taken_over
from k4t.master.run import Run
from k4t.model.hosts import Ssh
from k4t.model.snapshot import Lineage, Manifest
from k4t.model.spec import Tree
from k4t.model.state import Head
from k4t.model.value import value
from k4t.remote.ssh_config import split_hop
from k4t.remote.transport import Transport
from k4t.tree.age import NoIdentity
from k4t.tree.edit import write_file
from k4t.tree.read import read_tree

CONNECT_TIMEOUT_S = 10.0
SILENT_TIMEOUT_S = 2.0
MAX_TRIES = 50
FEW = 5

Connect = Callable[[str, Ssh, str], Transport]
Opening = Callable[[Path, frozenset[str]], AbstractContextManager[Run]]
"""The tree in a directory, and the names of hosts that did not answer a moment ago."""
Say = Callable[[str], None]


@value
class Asked:
    """What the command line says. `sources`: user@host:port, asked beside those of the kit. `folder`: a directory with
    copies on this machine. `key`: the SSH key's path; "" as ssh has it. `jump`: the way to hosts that have none."""

    kit: Kit
    db: Path
    sources: tuple[str, ...] = ()
    folder: Path | None = None
    jump: str = ""
    key: str = ""
    identity: Path | None = None
    rollback: bool = False

    @property
    def trust(self) -> Trust:
        return Trust(self.kit.id, self.kit.key)


@value
class Recovered:
    """`refused`: newer copies that were passed over, and why. `away`: hosts that did not answer, and why. `untold`:
    hosts that don't know yet who is the master. `missing`: revisions that are live and not in the copy (`--rollback`).
    `answered` of `asked` hosts said what is live. `signs`: why this machine may make no copies; "" when it may."""

    directory: Path
    source: str
    manifest: Manifest
    lineage: Lineage
    asked: int = 0
    answered: int = 0
    refused: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    signs: str = ""
    secrets: bool | None = None


@value
class _Chosen:
    candidate: Candidate
    manifest: Manifest
    archive: bytes
    refused: tuple[str, ...]


def recover(asked: Asked, connect: Connect, opening: Opening, *, who: str, at: str, say: Say) -> Recovered:
    """Raises Usage when `db` holds something; Unreachable or HostRefused when no source can be asked; BadCopy when no
    copy is good; NoIdentity; Unsafe when something newer is live; Locked while another run works. Nothing is in place
    then."""
    _need_room(asked.db)
    for sentence in tidied(asked.db, asked.db.absolute().parent):
        say(sentence)
    transports: list[Transport] = []
    try:
        places = _places(asked, connect, transports)
        more = f" and {len(places) - FEW} more" if len(places) > FEW else ""
        names = ", ".join(place.name for place in places[:FEW])
        say(f"asking {names}{more} for copies of {asked.kit.name} ({asked.kit.id})")
        found = reading.shelves(places, asked.trust)
        chosen = _chosen(asked, found)
    finally:
        for transport in transports:
            transport.close()
    say(f"taking {chosen.candidate.words}")
    with ExitStack() as stack:
        fresh = Fresh(asked.db, asked.db.absolute().parent)
        stack.callback(fresh.discard)
        unpack.unpack(chosen.archive, fresh.path)
        (fresh.path / restore.OWN).mkdir(mode=0o700, exist_ok=True)
        silent = {shelf.name: shelf.error for shelf in found if shelf.error is not None}
        return _settled(_Settling(asked, chosen, fresh, who, at, silent), opening, _away(found))


def _need_room(db: Path) -> None:
    try:
        filled = any(db.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise Usage(f"can't use {db}: {error.strerror}", "--db names another directory") from None
    if filled:
        raise Usage(f"{db} is not empty", "--db names a new directory; k4t restore puts a copy in place of a tree")


# --- who may have copies --------------------------------------------------------------------------------------------


def hosts_to_ask(asked: Asked) -> list[KitHost]:
    """Those that were named, first; then the kit's. Each once."""
    known = {(host.host, host.port): host for host in asked.kit.hosts}
    found: dict[tuple[str, int], KitHost] = {}
    for text in asked.sources:
        host = _named(text, known, asked.kit)
        found[host.host, host.port] = host
    for place, host in known.items():
        found.setdefault(place, host)
    return [dataclasses.replace(host, jump=asked.jump or host.jump) for host in found.values()]


def _named(text: str, known: dict[tuple[str, int], KitHost], kit: Kit) -> KitHost:
    try:
        user, host, port = split_hop(text)
    except ValueError:
        raise Usage(f"--from {text}: that is no host", "it is written user@host:port") from None
    sudo = any(one.sudo for one in kit.hosts if one.user == user)
    new = KitHost(text, user, host, port or 22, sudo=sudo)
    same = known.get((host, port or 22))
    return dataclasses.replace(same, user=user or same.user) if same else new


def _places(asked: Asked, connect: Connect, transports: list[Transport]) -> list[Place]:
    def opened(host: KitHost) -> Remote:
        ssh = Ssh(
            host=host.host, port=host.port, user=host.user, key=asked.key, jump=host.jump, sudo=host.sudo,
            connect_timeout_s=CONNECT_TIMEOUT_S,
        )  # fmt: skip
        transport = connect(host.name, ssh, host.host)
        transports.append(transport)
        return Remote(Target(transport, asked.kit.id, name=host.name))

    places = [Place(str(asked.folder), lambda: Folder(asked.folder or Path()))] if asked.folder else []
    places += [Place(host.name, lambda host=host: opened(host)) for host in hosts_to_ask(asked)]  # type: ignore[misc]
    if not places:
        raise Usage("the kit names no host", "--from user@host:port names one that has copies")
    return places


# --- which copy -----------------------------------------------------------------------------------------------------


def _chosen(asked: Asked, found: Sequence[Shelf]) -> _Chosen:
    """The newest good one. What looked newer, and isn't good, is answered in words."""
    sources = {shelf.name: shelf.source for shelf in found if shelf.source is not None}
    if not sources:
        raise restore.unasked(found)
    refused: list[str] = []

    def identities() -> list[Any]:
        return keys.recovery_identity(asked.kit.id, asked.kit, asked.identity)

    tries = 0
    for one in newest_first(one for shelf in found for one in shelf.candidates):
        source, manifest = sources[one.target], one.manifest
        if not one.good or manifest is None or source is None:
            refused.append(f"{one.words}: {one.problem}")
            continue
        tries += 1
        if tries > MAX_TRIES:
            break
        try:
            return _Chosen(one, manifest, reading.opened(source, one, asked.trust, identities), tuple(refused[:FEW]))
        except NoIdentity:
            raise
        except K4tError as error:
            refused.append(f"{one.words}: {error.words}")
    raise _nothing(asked, found, refused)


def _nothing(asked: Asked, found: Sequence[Shelf], refused: Sequence[str]) -> K4tError:
    away = [shelf for shelf in found if shelf.error is not None]
    said = [f"{shelf.name} has none" for shelf in found if shelf.error is None and not shelf.candidates]
    said += [*refused[:FEW], *_away(found)]
    if refused:
        return BadCopy(f"no copy can be taken: {'; '.join(said)}", "--from user@host:port names another host")
    error = restore.unasked(away) if away else K4tError("")
    message = f"there is no copy of {asked.kit.name} ({asked.kit.id}): {'; '.join(said)}"
    return type(error)(message, "--from user@host:port names another host")


def _away(found: Iterable[Shelf]) -> tuple[str, ...]:
    return tuple(f"{shelf.name} can't be asked: {shelf.error.words}" for shelf in found if shelf.error is not None)


# --- putting it in place --------------------------------------------------------------------------------------------


@value
class _Settling:
    asked: Asked
    chosen: _Chosen
    fresh: Fresh
    who: str
    at: str
    silent: Mapping[str, K4tError]

    @property
    def copy(self) -> WorkingCopy:
        return WorkingCopy(self.fresh.path)


def _settled(one: _Settling, opening: Opening, away: tuple[str, ...]) -> Recovered:
    """Under the locks of all hosts that answer. A tree that can't be read as it was copied is put in place all the
    same, and its hosts can't be asked."""
    try:
        tree = read_tree(one.fresh.path)
    except InvalidTree as error:
        first, *more = error.findings
        count = f"{1 + len(more)} errors" if more else "an error"
        note = f"the tree has {count}, so no host was asked or told anything: {first}"
        return dataclasses.replace(_placed(one, None, [], away), notes=(note,))
    with opening(one.fresh.path, frozenset(one.silent)) as run, run.lock():
        heard = lineage.heads(run.fleet, one.silent)
        done = _placed(one, tree, heard, away)
        reach("recover:placed")
        untold = lineage.tell(run, done.lineage, heard)
    reach("recover:told")
    return dataclasses.replace(done, untold=untold)


def _placed(one: _Settling, tree: Tree | None, heard: list[lineage.Heard], away: tuple[str, ...]) -> Recovered:
    asked, manifest = one.asked, one.chosen.manifest
    head = serials.newest(said.head for said in heard if said.head is not None)
    answered = sum(said.error is None for said in heard)
    live = Live(len(heard), answered, head.serial if head else 0, head.lineage if head else None)
    missing = _missing(head, manifest)
    if (older := older_than_live(one.chosen.candidate, live)) and not asked.rollback:
        raise _too_old(one, older, missing, away)
    new = _new_lineage(one, live)
    _remember(one, new, live)
    signs = _certified(one, tree)
    reach("recover:certified")
    one.fresh.swap(f"{asked.db.name}.before-recovery")
    silent = tuple(
        f"{said.host} did not say what is live: {said.error.words}"
        for said in heard if said.error is not None and said.host not in one.silent
    )  # fmt: skip
    secrets = kits.opens_secrets(asked.db, asked.kit) if tree is not None and tree.secrets else None
    return Recovered(
        asked.db, one.chosen.candidate.target, manifest, new, len(heard), answered, refused=one.chosen.refused,
        away=(*away, *silent), missing=missing if older else (), signs=signs, secrets=secrets,
    )  # fmt: skip


def _missing(head: Head | None, manifest: Manifest) -> tuple[str, ...]:
    """The revisions that hosts know and the copy does not have, newest first, a few of them."""
    revisions = [one for one in head.revisions if one.serial > manifest.serial] if head else []
    found = []
    for revision in sorted(revisions, key=lambda one: one.serial, reverse=True)[:FEW]:
        about = ", ".join(sorted(revision.apps)[:FEW]) or "the tree"
        said = [f" by {revision.who}"] if revision.who else []
        said += [f" at {revision.at}"] if revision.at else []
        said += [f": {revision.message}"] if revision.message else []
        found.append(f"serial {revision.serial} ({about}){''.join(said)}")
    return tuple(found)


def _too_old(one: _Settling, older: str, missing: Sequence[str], away: Sequence[str]) -> Unsafe:
    lost = f"; not in it: {'; '.join(missing)}" if missing else ""
    others = f"; {'; '.join(away)}" if away else ""
    return Unsafe(
        f"unsafe: {one.chosen.candidate.words} is {older}{lost}{others}",
        "--from names a host with a newer copy; --rollback takes this one all the same: then change by hand what is not"
        " in it, before k4t apply",
    )


def _new_lineage(one: _Settling, live: Live) -> Lineage:
    manifest = one.chosen.manifest
    theirs = Lineage(manifest.generation, manifest.lineage)
    new = record.begun(serial=max(live.serial, manifest.serial), who=one.who, at=one.at)
    return taken_over((live.lineage, one.copy.lineage(), theirs), new)


def _remember(one: _Settling, new: Lineage, live: Live) -> None:
    """What the new working copy knows: whose history it is, and that this was done. One that went back on purpose
    stands where the cluster stands: its next apply is no old clone's."""
    copy, manifest = one.copy, one.chosen.manifest
    copy.keep_lineage(new)
    if one.asked.rollback and live.serial > (copy.base_serial() or 0):
        write_file(copy.directory / "base", f"{live.serial}\n".encode(), 0o600)
    with suppress(K4tError):
        copy.audit({
            "at": one.at, "who": one.who, "result": "recovered", "serial": manifest.serial, "allow": [],
            "message": f"recovered copy {manifest.serial}.{manifest.sequence} from {one.chosen.candidate.target}",
        })  # fmt: skip


def _certified(one: _Settling, tree: Tree | None) -> str:
    """Why this machine may make no copies; "" when it may."""
    if tree is None or tree.recovery is None:
        return "the tree has no recovery.xml" if tree else "the tree can't be read"
    try:
        opening = keys.recovery_identity(one.asked.kit.id, one.asked.kit, one.asked.identity)
        keys.certify(one.asked.kit.id, tree.recovery, opening, one.at)
    except K4tError as error:
        return error.message
    return ""


# --- from here ------------------------------------------------------------------------------------------------------


def from_here(tree: Tree, key: str, jump: str, silent: Collection[str]) -> Tree:
    """The tree as this machine can use it: logging in with `key`, or, where the key that it names is not here, with
    ssh's own; through `jump` where it names none. Hosts that were `silent` a moment ago are not waited for long."""

    def own(ssh: Ssh) -> Ssh:
        named = key or (ssh.key if ssh.key and Path(ssh.key).expanduser().exists() else "")
        return dataclasses.replace(ssh, key=named, jump=ssh.jump or jump)

    def below(name: str, ssh: Ssh) -> Ssh:
        """A thing's own words; what it doesn't say is the cluster's."""
        timeout_s = SILENT_TIMEOUT_S if name in silent else ssh.connect_timeout_s
        return dataclasses.replace(ssh, key="" if key or not own(ssh).key else ssh.key, connect_timeout_s=timeout_s)

    return dataclasses.replace(
        tree,
        cluster=dataclasses.replace(tree.cluster, ssh=own(tree.cluster.ssh)),
        nodes={name: dataclasses.replace(one, ssh=below(name, one.ssh)) for name, one in tree.nodes.items()},
        gateways={name: dataclasses.replace(one, ssh=below(name, one.ssh)) for name, one in tree.gateways.items()},
        dns={name: dataclasses.replace(one, ssh=below(name, one.ssh)) for name, one in tree.dns.items()},
    )


def missing_keys(tree: Tree) -> Iterator[str]:
    """SSH keys that the tree names, and this machine doesn't have."""
    logins = [tree.cluster.ssh, *(one.ssh for one in tree.nodes.values())]
    logins += [*(one.ssh for one in tree.gateways.values()), *(one.ssh for one in tree.dns.values())]
    for path in sorted({ssh.key for ssh in logins if ssh.key}):
        if not Path(path).expanduser().exists():
            yield path
