"""The defaults of cluster.xml, merged into an app or node element by element: what its own file says wins."""

from __future__ import annotations

from k4t.tree.check import Node
from k4t.tree.table import Element


def merge(node: Node, default: Node, row: Element) -> None:
    """In place. Repeated elements with a key are taken one by one, those without only when `node` has none of them."""
    beside = _said_otherwise(node)
    for name, text in default.attributes.items():
        if name not in beside:
            node.attributes.setdefault(name, text)
    if not node.text or (row.text is None and node.text.isspace()):
        node.text = node.text or default.text
    own = {child.tag for child in node.children}
    keys = {(child.tag, _key(child, row)) for child in node.children}
    chosen = bool(own & set(row.one_of))
    for child in default.children:
        known = row.by_child.get(child.tag)
        if known is None or child.tag in beside:
            continue
        if known.many:
            if (known.key and (child.tag, _key(child, row)) not in keys) or (not known.key and child.tag not in own):
                node.children.append(child)
        elif child.tag in own:
            merge(next(mine for mine in node.children if mine.tag == child.tag), child, known)
        elif not (chosen and child.tag in row.one_of) and _complete(child, known):
            node.children.append(child)


def _key(node: Node, row: Element) -> str:
    known = row.by_child.get(node.tag)
    if known is None or not known.key:
        return ""
    return node.attributes.get(known.key) or known.by_attribute[known.key].default or ""


def _said_otherwise(node: Node) -> set[str]:
    """How many replicas there are is said in one of two ways: an app's own is the one that counts."""
    found = {"replicas"} if any(child.tag == "scale" for child in node.children) else set()
    return found | ({"scale"} if "replicas" in node.attributes else set())


def _complete(node: Node, row: Element) -> bool:
    """Defaults of `<health>` without a probe, or of `<scale>` without min and max, count for apps that have one, and
    make none."""
    required = {attribute.name for attribute in row.attributes if attribute.required}
    probed = not row.one_of or any(child.tag in row.one_of for child in node.children)
    return probed and required <= set(node.attributes)
