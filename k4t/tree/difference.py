"""What of an app is written otherwise than it was, in a few words: “env MODE changed”, “variable domain changed”."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k4t.tree.check import Node
from k4t.tree.read import Refused, parse
from k4t.tree.schema import FILES
from k4t.tree.table import Element

BESIDE = frozenset({"image", "placement", "update", "recycle", "depends", "job", "scale", "route", "record"})
"""What makes no container another one, or has words of its own."""
SHOWN_MAX = 3
Files = Mapping[str, bytes]


def of_app(before: Files, now: Files) -> str:
    """`before`, `now`: cluster.xml and the files of the app's directory, by their paths inside it (app.xml). Empty
    where nothing differs that makes a container another one, and where one can't be read."""
    try:
        found = [*_elements(before, now), *_of_cluster(before, now)]
    except (Refused, KeyError):
        return ""
    others = sorted((before.keys() | now.keys()) - {"app.xml", "cluster.xml"})
    found += [f"file {path} changed" for path in others if before.get(path) != now.get(path)]
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return ", ".join(found[:SHOWN_MAX]) + more


def _elements(before: Files, now: Files) -> Iterator[str]:
    row = FILES["apps/NAME/app.xml"]
    yield from _compared(parse(before["app.xml"], "app.xml"), parse(now["app.xml"], "app.xml"), row)


def _of_cluster(before: Files, now: Files) -> Iterator[str]:
    """The variables that the app names, and the defaults of apps."""
    if before["cluster.xml"] == now["cluster.xml"]:
        return
    old, new = (parse(files["cluster.xml"], "cluster.xml") for files in (before, now))
    was, is_ = _variables(old), _variables(new)
    texts = b"".join(now.values())
    for name in sorted(was.keys() | is_.keys()):
        if was.get(name) != is_.get(name) and b"${%s}" % name.encode() in texts:
            yield f"variable {name} changed"
    row = FILES["cluster.xml"].by_child["defaults"].by_child["app"]
    for words in _compared(_default_app(old), _default_app(new), row):
        yield f"default {words}"


def _variables(cluster: Node) -> dict[str, str]:
    return {one.attributes.get("name", ""): one.text for one in cluster.children if one.tag == "variable"}


def _default_app(cluster: Node) -> Node:
    defaults = next((one for one in cluster.children if one.tag == "defaults"), cluster)
    found = next((one for one in defaults.children if one.tag == "app"), None)
    return found or Node("app", {}, "", [], "cluster.xml", 0)


def _compared(before: Node, now: Node, row: Element) -> Iterator[str]:
    was, is_ = _parts(before, row), _parts(now, row)
    for words in [*is_, *(gone for gone in was if gone not in is_)]:
        if words not in was:
            yield f"{words} added"
        elif words not in is_:
            yield f"{words} removed"
        elif was[words] != is_[words]:
            yield f"{words} changed"


def _parts(app: Node, row: Element) -> dict[str, list[object]]:
    """Elements by what tells them apart: “env MODE”, “health”."""
    found: dict[str, list[object]] = {}
    for child in app.children:
        if child.tag not in BESIDE and child.tag in row.by_child:
            known = row.by_child[child.tag]
            key = child.attributes.get(known.key, "") if known.key else ""
            found.setdefault(f"{child.tag} {key}".rstrip(), []).append(_plain(child))
    return found


def _plain(node: Node) -> object:
    """Without where it stands."""
    return node.tag, node.attributes, node.text.strip(), [_plain(child) for child in node.children]
