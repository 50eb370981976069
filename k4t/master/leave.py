"""Nodes that leave: switched off so that they can't serve any more, looked at, cleaned and taken out of the tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from k4t import command
from k4t.errors import K4tError, Unreachable, Unsafe, Usage
from k4t.master import jobs
from k4t.master.fleet import WITHOUT_SHELL
from k4t.master.observe import observe, observe_node
from k4t.master.planning import serials
from k4t.master.planning.plan import Plan
from k4t.master.run import Run
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.state import Dead, Observed
from k4t.remote import head as remote_head
from k4t.tree.changes import Edit
from k4t.tree.read import read_tree

FENCE_TIMEOUT_S = 120.0


def fence_command(node: Node) -> str:
    """Raises Usage when the node has none."""
    if node.power is None or not node.power.off:
        raise Usage(
            f"{node.where}: {node.name} has no <power off>, so nothing here can switch it off",
            f"write one; or make sure that it is off, and --allow unfenced:{node.name}",
        )
    return node.power.off


def fence(node: Node) -> str:
    """Switch it off, from this machine; a word about it. Raises K4tError unless the command says that it succeeded."""
    text = fence_command(node)
    try:
        done = command.run(command.split(text), timeout_s=FENCE_TIMEOUT_S)
    except K4tError as error:
        raise K4tError(f"{node.name} is not known to be off: {error.message}", error.remedy) from error
    if not done.ok:
        raise K4tError(
            f"{node.name} is not known to be off: `{text}` said: {done.words()}",
            f"see to it that it is off, then --allow unfenced:{node.name}",
        )
    return f"{node.name} was switched off: `{text}`"


def remember_off(run: Run, node: Node) -> None:
    """Written down in the head, before it is switched off: this drained node is empty. Until it is heard of again,
    nothing is looked for there. The cluster's locks are held."""
    from k4t.master import record

    head = serials.newest(observe(run.fleet).heads)
    if head is not None:
        dead = {**head.dead, node.name: Dead(head.serial, fenced=True)}
        record.write_heads(run.fleet, dataclasses.replace(head, dead=dead, who=run.who, at=run.at), run.emit)


def refuse_unfenced(node: Node, allow: Collection[str]) -> None:
    """Raises Unsafe: a node that is cut off may serve all the same, and its data would be in use twice."""
    if not {"unfenced", f"unfenced:{node.name}"} & set(allow):
        raise Unsafe(
            f"unsafe: {node.name} may still run, and nothing says that it is off",
            f"--fence switches it off with its <power off>; if it is off, add --allow unfenced:{node.name}",
        )


def refuse_plan(node: Node, plan: Plan) -> None:
    """Raises Unsafe when giving the node up would be refused after it was switched off."""
    if plan.unsafe:
        reasons = "; ".join(change.detail for change in plan.unsafe)
        allows = " ".join(f"--allow {change.allow}" for change in plan.unsafe)
        raise Unsafe(f"unsafe, so {node.name} is not switched off: {reasons}", f"if that is meant, add {allows}")


def containers(run: Run, node: Node, *, others: bool = False) -> list[str]:
    """What it has of this cluster; with `others`, also of other clusters. Raises Unreachable."""
    state = observe_node(run.fleet, node)
    if not state.reachable:
        raise Unreachable(f"{node.name} can't be asked what it runs: {state.problem}", "it stays as it is")
    strangers = [one.name for one in state.strangers if one.cluster] if others else []
    return sorted([one.name for one in state.containers] + strangers)


def refuse_if_needed(run: Run, node: Node, allow: Collection[str]) -> bool:
    """Whether the node answers, and so can be cleaned. Raises K4tError for one that is in use or may be."""
    if node.availability not in ("drained", "dead"):
        raise K4tError(f"{node.name} is {node.availability}", f"k4t node drain {node.name} empties it first")
    observed = observe(run.fleet)
    state = observed.nodes[node.name]
    if published := _published(observed, node.name):
        raise K4tError(f"{node.name} is still published: {_few(published)}", "k4t apply puts that right")
    if state.containers:
        names = _few(sorted(one.name for one in state.containers))
        raise K4tError(f"{node.name} still has {names}", "k4t apply goes on with what moves; k4t explain APP says why")
    if not state.reachable and node.availability != "dead":
        raise Unreachable(
            f"{node.name} can't be asked whether it is empty: {state.problem}",
            f"try again when it answers, or give it up: k4t node dead {node.name}",
        )
    if not state.reachable and not {"uncleaned", f"uncleaned:{node.name}"} & set(allow):
        raise Unsafe(
            f"unsafe: {node.name} can't be asked, and would serve what it has when it comes back: {state.problem}",
            f"if it never does, add --allow uncleaned:{node.name}",
        )
    return state.reachable


def remove(run: Run, node: Node, allow: Collection[str], *, message: str = "") -> str:
    """Its file goes, then what k4t keeps on its disk, unless the host is something else of this tree as well; a word
    about it. Raises K4tError; the tree is as it was then."""
    run.copy.prepare()
    edit = Edit(run.directory)
    with run.lock():
        answers = refuse_if_needed(run, node, allow)
        try:
            edit.file(f"nodes/{node.name}.xml", None)
            read_tree(run.directory)
            cleaned = answers and _clean(run, node)
        except K4tError:
            edit.undo()
            raise
        run.copy.audit({
            "at": run.at, "who": run.who, "message": message, "result": f"node {node.name} removed",
            "allow": sorted(allow),
        })  # fmt: skip
    return f"removed node {node.name}" + ("" if cleaned else "; its disk was left as it is")


def _clean(run: Run, node: Node) -> bool:
    tree, fleet = run.tree, run.fleet
    jobs.clear(fleet, node.name)
    dns = [one for one in tree.dns.values() if one.driver not in WITHOUT_SHELL]
    others = [one for one in tree.nodes.values() if one.name != node.name]
    things: list[Node | Gateway | Dns] = [*others, *tree.gateways.values(), *dns]
    if fleet.host_of(node).key in {fleet.host_of(one).key for one in things}:
        return False
    directory = remote_head.path(tree.cluster.id).rpartition("/")[0]
    done = fleet.transport(node).run(["rm", "-rf", "--", directory])
    if not done.ok:
        raise K4tError(f"{directory} can't be removed: {done.words()}", host=node.name)
    return True


def _published(observed: Observed, node: str) -> list[str]:
    documents = [member.document for member in (*observed.gateways.values(), *observed.dns.values())]
    return sorted(
        {
            f"{endpoint.app}.{endpoint.replica}"
            for document in documents
            if document is not None
            for endpoint in document.endpoints
            if endpoint.node == node
        }
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
