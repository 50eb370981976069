"""What of an app is written otherwise than it was, in the words that a plan shows."""

from __future__ import annotations

import pytest

from k4t.tree.difference import of_app

pytestmark = pytest.mark.unit
VARIABLES = '<variable name="v">{v}</variable><variable name="other">{o}</variable>'
CLUSTER = f'<cluster name="t" id="k7f3q2m9">{VARIABLES}{{d}}</cluster>'


def files(app: str, *, v: str = "1", o: str = "1", d: str = "", **more: bytes) -> dict[str, bytes]:
    cluster = CLUSTER.format(v=v, o=o, d=d)
    return {"app.xml": f"<app>{app}</app>".encode(), "cluster.xml": cluster.encode(), **more}


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (files('<env name="A">1</env>'), files('<env name="A">2</env>'), "env A changed"),
        (files(""), files('<env name="A">2</env><health><http/></health>'), "env A added, health added"),
        (files('<command><arg>a</arg></command>'), files(""), "command removed"),
        (files('<env name="A">1</env>'), files('\n  <!-- why -->\n  <env  name="A" >1</env>'), ""),
        (files('<route domain="a"/>'), files('<route domain="b"/><update drain="1s"/>'), ""),
        (files('<env name="A">${v}</env>'), files('<env name="A">${v}</env>', v="2", o="2"), "variable v changed"),
        (
            files("", d='<defaults><app><log max-files="2"/></app></defaults>'),
            files("", d='<defaults><app><log max-files="3"/></app></defaults>'),
            "default log changed",
        ),
        (files("", conf=b"1"), files("", conf=b"2"), "file conf changed"),
        (
            files(""),
            files("".join(f'<env name="{name}">1</env>' for name in "ABCDE")),
            "env A added, env B added, env C added and 2 more",
        ),
        (files("<"), files(""), ""),
    ],
)  # fmt: skip
def test_what_differs(before: dict[str, bytes], now: dict[str, bytes], words: str) -> None:
    """An element by what tells it apart, a variable that the app names, a default, a file beside app.xml; nothing of
    what makes no container another one."""
    assert of_app(before, now) == words
