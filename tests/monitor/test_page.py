"""The page: valid, whole in itself, worst first, and whatever hosts say stays text."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.monitor.check import Looked
from k4t.monitor.facts import Facts, Failure, Host, OffNotice, Subject
from k4t.monitor.judge import Finding, Judgement
from k4t.monitor.page import page, style, wrong
from k4t.monitor.page.markup import Html, element, text
from k4t.monitor.page.past import LEAST_S, MOST_S, Axis
from k4t.remote.lock import Holder
from tests.monitor import clusters
from tests.monitor.world import NOW_S, facts, tree

pytestmark = pytest.mark.unit
NAMES = "{http://www.w3.org/1999/xhtml}"
STATES: dict[str, Callable[[], Looked]] = {
    "healthy": clusters.healthy, "bad": clusters.bad, "large": clusters.large, "hostile": clusters.hostile,
}  # fmt: skip


def written(looked: Looked, *, hostile: bool = False, refresh_s: float = 30.0) -> str:
    return page(
        looked, looked.tree, clusters.revisions(hostile=hostile), NOW_S + 4, refresh_s=refresh_s,
        events=clusters.events(hostile=hostile), sizing=clusters.sizing(hostile=hostile),
    )  # fmt: skip


def parsed(source: str) -> Element:
    """By a parser that takes nothing that HTML forbids."""
    return html5lib.HTMLParser(strict=True).parse(source)  # type: ignore[no-any-return]


@functools.cache
def state(name: str) -> tuple[str, Element]:
    """Its page, as written and as parsed; nobody changes it."""
    source = written(STATES[name](), hostile=name == "hostile")
    return source, parsed(source)


def elements(found: Element, *tags: str) -> list[Element]:
    return [one for one in found.iter() if not tags or one.tag.rpartition("}")[2] in tags]


def words(found: Element) -> str:
    return " ".join(" ".join(found.itertext()).split())


def outline(found: Element) -> str:
    """Headings, how many items lists have, and the heads of tables."""
    (body,) = elements(found, "body")
    return "\n".join(_outline(body))


def _outline(found: Element) -> Iterator[str]:
    for one in elements(found, "h1", "h2", "h3", "h4", "ol", "ul", "table"):
        name = one.tag.rpartition("}")[2]
        if name.startswith("h"):
            yield f"{'  ' * (int(name[1]) - 1)}{words(one)}"
        elif name == "table":
            rows = len(elements(one, "tr")) - 1
            yield f"    {rows} rows of {' | '.join(words(head) for head in elements(elements(one, 'thead')[0], 'th'))}"
        elif set((one.get("class") or "").split()) & {"findings", "lanes"}:
            yield f"    {len(list(one))} {(one.get('class') or '').split()[0]}"


HEALTHY = """\
prod
  What is wrong
  The cluster
    Gateways and DNS servers
      gw1
      gw2
      ns1
      ns2
    Nodes (4)
      node1
      node2
      node3
      node4
    Other machines
      vault
  Apps (5)
    5 rows of App | State | Image | Wanted | Running | Well | Published
  Sizes that follow the load
    1 findings
  What happened lately
    9 findings
  Copies of the tree
    4 lanes
  What changed last
    6 rows of Serial | When | Who | What"""


def test_a_healthy_cluster_is_a_map_that_says_so() -> None:
    """Headings in order, nothing wrong, every thing of the tree by its name."""
    _, found = state("healthy")
    assert outline(found) == HEALTHY
    assert words(elements(found, "title")[0]) == "prod: all is well"
    assert "✓ nothing" in words(elements(found, "main")[0])


def test_what_is_wrong_comes_first_and_the_worst_of_it_before_the_rest() -> None:
    """With since when and what would help; what has only just been seen stands apart."""
    _, found = state("bad")
    expected = HEALTHY.replace(
        "What is wrong",
        "What is wrong\n    5 findings\n    Seen, and not in enough checks yet to count\n    2 findings",
    )
    assert outline(found) == expected
    assert words(elements(found, "title")[0]) == "prod: 5 critical"
    first = words(elements(elements(found, "ol")[0], "li")[0])
    assert first == (
        "✕ critical app web restarting for 11 min 1 of 6: replica 0 on node1 ended 9 times in 10 min (Restarting (1) "
        "4 seconds ago) What would help: k4t logs web"
    )


def test_a_card_leads_to_what_is_found_of_it() -> None:
    """And not to what is found of its neighbour on the same machine."""
    _, found = state("bad")
    cards = {words(elements(one, "h4")[0]): one for one in elements(found, "li") if elements(one, "h4")}
    links = {name: [one.get("href") for one in elements(card, "a")] for name, card in cards.items()}
    assert links["node3"] == ["#finding-5"]
    assert links["gw2"] == ["#finding-3"]
    assert links["ns2"] == links["node1"] == []
    assert "off, or cut off" in words(next(one for one in elements(found, "li") if one.get("id") == "finding-5"))


@pytest.mark.parametrize("name", STATES)
def test_it_is_valid_and_nothing_in_it_leads_elsewhere(name: str) -> None:
    """Every reference is one within the page; ids are there once; no element that would fetch something."""
    source, found = state(name)
    every = elements(found)
    ids = [identity for one in every if (identity := one.get("id"))]
    assert len(ids) == len(set(ids))
    links = [one.get("href", "") for one in elements(found, "a")]
    assert {link[:1] for link in links} == {"#"}
    assert {link[1:] for link in links} <= set(ids)
    assert {one.get("aria-labelledby") for one in every} - {None} <= set(ids)
    (icon,) = elements(found, "link")
    assert (icon.get("rel"), (icon.get("href") or "")[:20]) == ("icon", "data:image/svg+xml,%")
    fetching = ("img", "iframe", "object", "embed", "video", "audio", "source", "base", "form", "image", "use", "track")
    assert not elements(found, *fetching)
    assert not [one for one in every if {"src", "srcset", "action", "style", "ping"} & set(one.keys())]
    assert "//" not in source
    assert "url(" not in source
    assert "@import" not in source


@pytest.mark.parametrize("name", STATES)
def test_the_browser_is_told_to_run_this_script_alone(name: str) -> None:
    """Its policy names the style's and the script's hash, and nothing else."""
    _, found = state(name)
    (policy,) = [
        one.get("content") for one in elements(found, "meta") if one.get("http-equiv") == "Content-Security-Policy"
    ]
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (one,) = elements(found, tag)
        digest = base64.b64encode(hashlib.sha256((one.text or "").encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in (policy or "")
    assert (policy or "").startswith("default-src 'none'; ")


@pytest.mark.parametrize("name", STATES)
def test_who_hears_it_finds_their_way(name: str) -> None:
    """Language, title, landmarks, one h1 and no level left out, heads of tables that say what they head, scrolled boxes
    that keys can reach, a first link past the top."""
    _, found = state(name)
    assert found.get("lang") == "en"
    assert [len(elements(found, tag)) for tag in ("title", "header", "main", "footer", "h1")] == [1] * 5
    levels = [int(one.tag[-1]) for one in elements(found, "h1", "h2", "h3", "h4")]
    assert all(later <= before + 1 for before, later in itertools.pairwise(levels))
    assert {one.get("scope") for one in elements(found, "th")} == {"col", "row"}
    assert all(one.get("aria-labelledby") for one in elements(found, "section"))
    boxes = [one for one in elements(found, "div") if "scroll" in (one.get("class") or "")]
    assert {(one.get("tabindex"), one.get("role")) for one in boxes} == {("0", "region")}
    assert {one.get("aria-hidden") for one in elements(found, "svg")} == {"true"}
    first = elements(found, "a")[0]
    assert (first.get("href"), words(first)) == ("#wrong", "Skip to what is wrong")


@pytest.mark.parametrize("name", STATES)
def test_nothing_is_said_by_colour_alone(name: str) -> None:
    """Whatever has a level's colour has words, and a sign that is another for each level."""
    _, found = state(name)
    badges = [one for one in elements(found, "span") if "badge" in (one.get("class") or "")]
    assert badges
    for badge in badges:
        sign, (level,) = words(elements(badge, "span")[1]), re.findall(r"is-(\w+)", badge.get("class") or "")
        assert sign == {"ok": "✓", "warning": "!", "critical": "✕", "unknown": "?", "plain": "·"}[level]
        assert len(words(badge)) > len(sign)


@pytest.mark.parametrize("colors", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_text_can_be_read_on_what_it_stands_on(colors: dict[str, str]) -> None:
    """Contrast of 4.5 to 1 at least (WCAG 2.2, 1.4.3), and 3 to 1 for the bars (1.4.11)."""
    for front, back in style.TEXT_ON:
        assert _contrast(colors[front], colors[back]) >= 4.5, (front, back)
    for level in style.LEVELS:
        assert _contrast(colors[level], colors["card"]) >= 3.0


def _contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    shares = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# --- hostile words ---------------------------------------------------------------------------------------------------


def test_no_word_of_a_host_becomes_markup() -> None:
    """Names, messages, states, images, problems, who and why: shown as text, and no element is there for it."""
    source, found = state("hostile")
    shown = text(clusters.HOSTILE)
    assert source.count(shown) >= 10
    assert "<img" not in source
    assert len(elements(found, "script")) == len(elements(found, "style")) == 1
    assert not [key for one in elements(found) for key in one.keys() if key.startswith("on")]  # noqa: SIM118
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source)
    source.encode("utf-8")


@given(st.text(alphabet=st.characters(), max_size=300))
def test_text_is_text(words: str) -> None:
    """Whatever it is, a strict parser reads it back as one text, in an element and in an attribute."""
    made = element("p", words, title=words)
    assert made.count("<") == made.count(">") == 2
    found = html5lib.HTMLParser(strict=True).parseFragment(made)
    assert len(elements(found, "p")) == 1
    made.encode("utf-8")


def test_text_that_never_ends_is_cut() -> None:
    """So that one host can't make the page too large for a phone."""
    assert len(text("x" * 1_000_000)) <= 2000
    assert isinstance(text("x"), Html)


# --- sizes, age --------------------------------------------------------------------------------------------------


def test_a_hundred_nodes_fit() -> None:
    """All are there by name, what they run is counted, and what is off stands on top."""
    source, found = state("large")
    names = [words(one) for one in elements(found, "h4")]
    assert [name for name in names if name.startswith("node")] == [f"node{number}" for number in range(1, 101)]
    assert len(source) < 400_000
    assert "node17" in words(elements(found, "ol")[0])
    assert "and 18 more apps" in words(elements(found, "main")[0])


def test_what_does_not_fit_is_counted() -> None:
    """The worst hundred are shown, and how many more there are."""
    one = clusters.bad()
    same = one.judgement.findings[0]
    many = tuple(dataclasses.replace(same, subject=Subject("app", f"a{number}")) for number in range(250))
    found = parsed(written(dataclasses.replace(one, judgement=Judgement(many, one.judgement.history))))
    assert len(elements(elements(found, "ol")[0], "li")) == wrong.SHOWN
    assert "and 150 more findings" in words(elements(found, "main")[0])
    links = {link.get("href") for link in elements(found, "a")}
    assert "#finding-101" not in links


@pytest.mark.parametrize(
    ("refresh_s", "content", "stale"), [(30.0, "30", "120"), (0.5, "1", "120"), (600.0, "600", "2400")]
)
def test_it_looks_for_its_successor_and_knows_when_it_is_old(refresh_s: float, content: str, stale: str) -> None:
    """By itself, without a script; the script says the age, and what stands hidden until then."""
    found = parsed(written(clusters.healthy(), refresh_s=refresh_s))
    (refresh,) = [one.get("content") for one in elements(found, "meta") if one.get("http-equiv") == "refresh"]
    (body,) = elements(found, "body")
    assert refresh == content
    assert (body.get("data-at"), body.get("data-stale")) == (f"{NOW_S:.0f}", stale)
    (old,) = [one for one in elements(found) if one.get("id") == "old"]
    assert old.get("hidden") is not None
    assert "Nobody has written this page" in words(old)
    assert elements(found, "time")[0].get("datetime") == "2026-11-18T11:06:40Z"


def noted(found: Facts) -> str:
    wanted = tree()
    return words(elements(parsed(page(clusters.looked(found, wanted), wanted, (), NOW_S)), "header")[0])


def test_a_master_that_is_off_on_purpose_and_a_run_at_work_are_said() -> None:
    """Above everything: they explain what follows."""
    off = OffNotice("ana@laptop", "2026-11-18T10:00:00Z", "done for today", genuine=True, read_on="gw1")
    assert "off on purpose since 2026-11-18T10:00:00Z, by ana@laptop: done for today" in noted(
        dataclasses.replace(facts(), off=off)
    )
    master = Subject("master", "k4t-master")
    silent = Failure("silent", "k4t-master:22 does not answer within 10 s")
    hosts = {**facts().hosts, master.key: Host(master.name, master, (master,), failure=silent)}
    asleep = dataclasses.replace(facts(), off=off, hosts=hosts, master=master.key)
    shown = parsed(page(clusters.looked(asleep, tree()), tree(), (), NOW_S))
    (card,) = [one for one in elements(shown, "li") if [words(name) for name in elements(one, "h4")] == ["k4t-master"]]
    assert words(card) == "k4t-master · off on purpose master"
    forged = dataclasses.replace(off, genuine=False)
    assert "off on purpose" not in noted(dataclasses.replace(facts(), off=forged))
    host = facts().hosts["node/n1"]
    assert host.reading is not None
    reading = dataclasses.replace(
        host.reading, lock=Holder("ana", "laptop", 7, "2026-11-18T11:06:00Z", "apply", "r1"), lock_held=True
    )
    locked = {**facts().hosts, "node/n1": dataclasses.replace(host, reading=reading)}
    assert "A run is at work: " in noted(dataclasses.replace(facts(), hosts=locked))


def test_a_cluster_of_which_nothing_is_known_has_a_page_too() -> None:
    """No host, no app, no copy, no apply."""
    nothing = Facts(at_s=NOW_S, took_s=0.0, cluster="", cluster_id="")
    wanted = dataclasses.replace(tree(), nodes={}, apps={}, gateways={}, dns={})
    none: tuple[Finding, ...] = ()
    looked = Looked(nothing, Judgement(none, clusters.healthy().judgement.history), wanted)
    found = words(elements(parsed(page(looked, wanted, (), NOW_S)), "main")[0])
    assert "There are none." in found
    blind = dataclasses.replace(looked, has_tree=False)
    assert "Only the tree knows of them." in words(parsed(page(blind, wanted, (), NOW_S)))
    assert "No host knows of an apply." in found


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(1, 1e10))
def test_what_is_older_stands_further_left(one_s: float, other_s: float, range_s: float) -> None:
    """And all of it on the axis."""
    axis = Axis(range_s)
    assert LEAST_S <= axis.range_s <= MOST_S
    assert axis.at(0) == 100.0
    older, newer = max(one_s, other_s), min(one_s, other_s)
    assert -1e-9 <= axis.at(older) <= axis.at(newer) <= 100.0
