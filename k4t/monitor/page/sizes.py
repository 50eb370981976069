"""Apps whose size follows their load: how many replicas, within what, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.model.app import App, Scale
from k4t.monitor.page.markup import Html, element
from k4t.monitor.page.view import Page, badge, more, named
from k4t.monitor.signs.sign import unix_s

SHOWN = 200


def section(page: Page) -> Html:
    """Nothing where no app has `<scale>`."""
    apps = sorted((app for app in page.tree.apps.values() if app.scale is not None), key=lambda app: app.name)
    if not apps:
        return Html("")
    return element(
        "section",
        element("h2", "Sizes that follow the load", id="sizes"),
        element("ul", *(_size(page, app, app.scale) for app in apps[:SHOWN] if app.scale), class_="findings card"),
        *more(len(apps) - SHOWN, "apps"),
        aria_labelledby="sizes",
    )


def _size(page: Page, app: App, scale: Scale) -> Html:
    number = str(len(page.facts.desired[app.name])) if app.name in page.facts.desired else "?"
    within = element("span", f"from {scale.min} to {scale.max}", class_="soft small")
    about = element("p", element("strong", named(app.name)), Html(" "), within)
    count = badge("plain", f"{number} replica{'' if number == '1' else 's'}")
    return element("li", count, element("div", about, *_why(page, app)))


def _why(page: Page, app: App) -> Iterator[Html]:
    """What the monitor makes of its load now, and who asked for the size that it has."""
    if words := page.sizing.get(app.name, ""):
        yield element("p", named(words))
    asked = page.facts.head.sizes.get(app.name) if page.facts.head else None
    if asked is not None and asked.who:
        at_s = unix_s(asked.at)
        since = f", {page.since(at_s)} ago" if at_s is not None else ""
        why = f": {asked.why}" if asked.why else ""
        yield element("p", named(f"{asked.replicas} asked for by {asked.who}{since}{why}"), class_="soft small")
