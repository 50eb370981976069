"""The apps, counted. Pure."""

from __future__ import annotations

from k4t.monitor.page.markup import Html, element
from k4t.monitor.page.view import Page, badge, more, named

SHOWN = 500
HEAD = ("App", "State", "Image", "Wanted", "Running", "Well", "Published")


def section(page: Page) -> Html:
    names = sorted({*page.facts.desired, *page.containers})
    title = element("h2", f"Apps ({len(names)})", id="apps")
    if not names:
        return element("section", title, element("p", "There are none.", class_="card soft"), aria_labelledby="apps")
    head = element("tr", *(element("th", word, scope="col", class_=_class(place)) for place, word in enumerate(HEAD)))
    rows = [_row(page, name) for name in names[:SHOWN]]
    table = element("table", element("thead", head), element("tbody", *rows))
    boxed = element("div", table, class_="card scroll", tabindex="0", role="region", aria_labelledby="apps")
    return element("section", title, boxed, *more(len(names) - SHOWN, "apps"), aria_labelledby="apps")


def _class(place: int) -> str:
    return {2: "narrow-out", 4: "number narrow-out", 6: "number narrow-out"}.get(place, "number" if place > 2 else "")


def _row(page: Page, name: str) -> Html:
    containers = page.containers.get(name, ())
    wanted = len(page.facts.desired[name]) if name in page.facts.desired else None
    well = sum(1 for one in containers if page.container(one)[0] == "ok")
    app = page.tree.apps.get(name)
    images = [app.image.reference] if app else sorted({one.image for one in containers})[:1]
    figures = (
        "?" if wanted is None else wanted,
        sum(one.running for one in containers),
        well,
        len(page.published.get(name, ())),
    )
    cells = [
        element("td", _state(page, name, wanted, well)),
        element("td", named(images[0] if images else ""), class_="wide narrow-out"),
        *(element("td", str(figure), class_=_class(place)) for place, figure in enumerate(figures, 3)),
    ]
    return element("tr", element("th", named(name), scope="row", class_="name"), *cells)


def _state(page: Page, name: str, wanted: int | None, well: int) -> Html:
    app, worst = page.tree.apps.get(name), page.worst(f"app/{name}")
    if worst is not None:
        number, finding = worst
        return element("a", badge(finding.level, finding.what), href=f"#finding-{number}")
    if seen := next((one for one in page.pending if one.subject.key == f"app/{name}"), None):
        return badge(seen.level, f"{seen.what}, just now")
    if app is not None and app.stopped:
        return badge("plain", "stopped")
    if app is None and page.looked.has_tree:
        return badge("plain", "not in the tree")
    expected = len(page.containers.get(name, ())) if wanted is None else wanted
    return badge("ok", "well") if well >= expected else badge("unknown", f"{expected - well} not known")
