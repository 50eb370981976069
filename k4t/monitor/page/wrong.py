"""What is wrong, the worst first. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.monitor.judge import Finding
from k4t.monitor.page.markup import Html, element
from k4t.monitor.page.view import Page, acted, badge, more, named

SHOWN = 100
"""The rest is counted."""


def section(page: Page) -> Html:
    return element("section", element("h2", "What is wrong", id="wrong"), *_inside(page), aria_labelledby="wrong")


def _inside(page: Page) -> Iterator[Html]:
    if page.raised:
        items = [_finding(page, one, number) for number, one in enumerate(page.raised[:SHOWN], 1)]
        yield element("ol", *items, class_="findings card")
        yield from more(len(page.raised) - SHOWN, "findings: k4t monitor check")
    else:
        yield element("p", badge("ok", "nothing"), class_="card")
    if page.pending:
        yield element("h3", "Seen, and not in enough checks yet to count")
        yield element("ul", *(_finding(page, one) for one in page.pending[:SHOWN]), class_="findings card")
        yield from more(len(page.pending) - SHOWN, "of these")
    if page.mentioned:
        yield element("h3", "Worth knowing")
        yield element("ul", *(_finding(page, one) for one in page.mentioned[:SHOWN]), class_="findings card")


def _finding(page: Page, one: Finding, number: int = 0) -> Html:
    noted = one.confirmed and one.level == "ok"
    since = f"for {page.since(one.since_s)}" if one.confirmed and not noted and page.now_s - one.since_s >= 1 else ""
    about = [element("strong", named(str(one.subject))), Html(" "), element("span", one.what)]
    about += [Html(" "), element("span", since, class_="soft small")] if since else []
    said = [element("p", *about), element("p", named(one.sentence))]
    if one.confirmed and (done := page.action(one)) is not None:
        ago = element("span", f" {page.since(done.at_s)} ago", class_="soft small")
        said.append(element("p", acted(done), Html(" "), named(done.words), ago))
    if one.remedy and one.present:
        said.append(element("p", "What would help: ", named(one.remedy), class_="soft"))
    return element(
        "li", badge("plain", "noted") if noted else badge(one.level), element("div", *said),
        class_=f"at-{one.level}", id=f"finding-{number}" if number else "",
    )  # fmt: skip
