"""The page in a real browser: phone and desktop, light and dark, all well and much wrong. Screenshots are kept where
K4T_SCREENSHOTS says."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e.browser import Browser
from tests.monitor.test_page import STATES, written

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not browser.PROGRAM, reason="no Chromium on this machine"),
]
WIDTHS = {"phone": 375, "desktop": 1280}
TABS_MOST = 200
CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const linear = v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(linear); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = []; const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const one = node.parentElement;
    if (!node.data.trim() || ["SCRIPT", "STYLE"].includes(one.tagName) || !one.getClientRects().length) continue;
    const style = getComputedStyle(one);
    const svg = one.ownerSVGElement;
    const a = light(parse(svg ? style.fill : style.color).slice(0, 3));
    const b = light(behind(svg ? svg.parentElement : one));
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.data.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 5).concat([[found.length, "texts"]]);
})()"""
"""Of all texts that are shown, those that are hardest to read: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
FOCUSED = """(() => { const one = document.activeElement;
  const style = getComputedStyle(one), box = one.getBoundingClientRect();
  return [one.tagName, one.getAttribute("href") || one.getAttribute("aria-labelledby") || "", style.outlineStyle,
          parseFloat(style.outlineWidth), box.width > 0 && box.left >= 0]; })()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as up:
        yield up


def made(name: str, directory: Path) -> Path:
    """As it was written just now, or it would say that it is old."""
    source = re.sub(
        r'data-at="\d+"', f'data-at="{time.time():.0f}"', written(STATES[name](), hostile=name == "hostile")
    )
    file = directory / f"{name}.html"
    file.write_text(source)
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", STATES if "K4T_FULL" in os.environ else [name for name in STATES if name != "large"])
def test_it_fits_and_can_be_read(chromium: Browser, tmp_path: Path, name: str, width: str, scheme: str) -> None:
    """Nothing stands beyond the edge, every text has a contrast of 4.5 at least, the script runs under the page's own
    policy, and nothing was asked for but the file itself."""
    file = made(name, tmp_path)
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.show(file, width=WIDTHS[width], dark=scheme == "dark")
    assert chromium.run("document.getElementById('age').textContent").endswith(" ago")
    assert chromium.run("document.documentElement.scrollWidth") <= WIDTHS[width]
    *hardest, (number, _) = chromium.run(CONTRAST)
    assert number > 20
    assert hardest[0][0] >= 4.5, hardest
    assert [url for url in chromium.requests if not url.startswith("data:")] == [file.as_uri()]
    assert chromium.complaints == []
    if directory := os.environ.get("K4T_SCREENSHOTS"):
        chromium.screenshot(Path(directory) / f"{name}-{width}-{scheme}.png")


def test_the_keys_reach_everything_and_show_where_they_are(chromium: Browser, tmp_path: Path) -> None:
    """The first stop leads past the top; each stop is on the page, has an outline, and leads to a place there."""
    chromium.show(made("bad", tmp_path), width=1280)
    stops: list[Any] = []
    for _ in range(TABS_MOST):
        chromium.press("Tab")
        stop = chromium.run(FOCUSED)
        if stop[0] == "BODY" or (stops and stop[:2] == stops[0][:2]):
            break
        stops.append(stop)
    assert stops[0][:2] == ["A", "#wrong"]
    assert len(stops) == chromium.run("document.querySelectorAll('a[href],[tabindex=\"0\"]').length")
    assert [stop for stop in stops if stop[2] == "none" or stop[3] < 2 or not stop[4]] == []
    assert chromium.run(
        "[...document.querySelectorAll('a')].every(a => document.querySelector(a.getAttribute('href')))"
    )


def test_who_hears_it_is_told_the_same(chromium: Browser, tmp_path: Path) -> None:
    """In the accessibility tree: landmarks, headings, names of tables and lists; no picture without words."""
    chromium.show(made("bad", tmp_path), width=1280)
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    roles = [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in nodes if not one.get("ignored")]
    assert {"banner", "main", "contentinfo"} <= {role for role, _ in roles}
    headings = [name for role, name in roles if role == "heading"]
    assert headings[:2] == ["prod", "What is wrong"]
    regions = [name for role, name in roles if role == "region"]
    assert {"What is wrong", "The cluster", "What happened lately", "What changed last"} <= set(regions)
    assert not [role for role, name in roles if role in ("img", "image", "button", "link", "region") and not name]
    assert sum(role == "columnheader" for role, _ in roles) >= 9
    assert sum(role == "rowheader" for role, _ in roles) >= 5
