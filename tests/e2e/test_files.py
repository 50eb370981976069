"""Files in containers, and what a new content does."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Host

pytestmark = pytest.mark.integration
NAME = "prod.web.0.1"
# An app that reads its file once, and again at each SIGHUP, and does not run with "bad".
SCRIPT = (
    "trap 'cat /conf/a >/dev/shm/seen' HUP; cat /conf/a >/dev/shm/seen; "
    "read -r word </conf/a; [ $word != bad ] || exit 1; while :; do sleep 0.1; done"
)
READER = f"""\
  <command><arg>/bin/sh</arg><arg>-c</arg><arg>{SCRIPT.replace("<", "&lt;").replace(">", "&gt;")}</arg></command>
  <health interval="1s" start-period="0s"><exec><arg>/bin/true</arg></exec></health>"""


def app(site: Site, on_change: str, content: str, *, limit: str = "100%", file: str = "", replicas: int = 1) -> None:
    site.write("apps/web/a.conf", content)
    named = file or '<file source="a.conf" target="/conf/a"'
    site.write(
        "apps/web/app.xml",
        f"""<app replicas="{replicas}"><image>{site.lab.image}</image>
{READER}
  {named} on-change="{on_change}"/>
  <update max-unavailable="{limit}" drain="0s"/><stop grace="1s"/>
</app>
""",
    )


def on(site: Site, name: str = NAME) -> Host:
    return next(host for host in site.lab.nodes if name in containers(host))


def inspected(host: Host, name: str = NAME) -> Any:
    return json.loads(host.docker(["inspect", name]).stdout)[0]


def seen(host: Host, expected: str, name: str = NAME) -> None:
    """What the program inside has read, once it has."""
    for _ in range(100):
        text = host.docker(["exec", name, "cat", "/dev/shm/seen"], check=False).stdout
        if text == expected:
            return
        time.sleep(0.1)
    pytest.fail(f"it has read {text!r} instead of {expected!r}")


def apply_one(site: Site, *actions: str) -> dict[str, Any]:
    """One apply whose plan has exactly these actions; afterwards nothing is left to do."""
    plan = site.json("plan")
    assert [step["action"] for step in plan["steps"]] == list(actions)
    site.k4t("apply", "--yes")
    assert site.json("plan")["steps"] == []
    return plan["steps"][0]  # type: ignore[no-any-return]


def test_a_signal_brings_a_new_content(site: Site) -> None:
    """The same container, the same process: it sees the whole new file and is told; again and again."""
    app(site, "SIGHUP", "one\n")
    site.k4t("apply", "--yes")
    host = on(site)
    before = inspected(host)
    seen(host, "one\n")
    for content in ("two, and longer than before\n", "3\n"):
        app(site, "SIGHUP", content)
        assert apply_one(site, "refresh")["cause"] == "file /conf/a changed"
        seen(host, content)
    after = inspected(host)
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def test_a_restart_brings_a_new_content(site: Site) -> None:
    """The same container, started anew, and healthy before the run ends."""
    app(site, "restart", "one\n")
    site.k4t("apply", "--yes")
    host = on(site)
    before = inspected(host)
    app(site, "restart", "two\n")
    apply_one(site, "refresh", "await")
    seen(host, "two\n")
    after = inspected(host)
    assert after["Id"] == before["Id"]
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]


def test_where_a_restart_is_an_outage_it_is_replaced(site: Site) -> None:
    """Limits that let none be away: the new one is there before the old one goes."""
    app(site, "restart", "one\n", limit="0")
    site.k4t("apply", "--yes")
    app(site, "restart", "two\n", limit="0")
    site.k4t("apply", "--yes")
    host = on(site, "prod.web.0.2")
    seen(host, "two\n", "prod.web.0.2")
    assert host.exec(["ls", f"/var/lib/k4t/{site.id}/containers"]).stdout.split() == ["prod.web.0.2"]
    assert site.json("plan")["steps"] == []


@pytest.mark.crash
@pytest.mark.parametrize(
    ("on_change", "place"),
    [
        ("SIGHUP", "before:refresh"),
        ("SIGHUP", "after:refresh"),
        ("restart", "before:refresh:2"),
        ("restart", "after:refresh"),
        ("restart", "before:await"),
        ("restart", "after:await"),
    ],
)
def test_a_change_in_place_converges_wherever_it_was_killed(
    site: Site, tmp_path: Path, on_change: str, place: str
) -> None:
    """Another machine, without `.k4t/`, brings it to those that lack it: the same containers, nothing left to do."""
    app(site, on_change, "one\n", limit="1", replicas=2)
    site.k4t("apply", "--yes")
    app(site, on_change, "two\n", limit="1", replicas=2)
    process = site.start("apply", "--yes", extra={"K4T_FAILPOINT": place})
    out, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, out + said
    other = site.copy(tmp_path / "other")
    other.k4t("apply", "--yes", "--wait")
    for name in (NAME, "prod.web.1.1"):
        seen(on(site, name), "two\n", name)
    assert sorted(name for host in site.lab.nodes for name in containers(host)) == [NAME, "prod.web.1.1"]
    assert other.json("plan")["steps"] == []


def test_a_content_that_does_not_run_is_put_back_where_it_came_with_a_new_container(site: Site) -> None:
    """Like any other failed update: the old container serves with the old content, the new one is held."""
    app(site, "restart", "one\n", limit="0")
    site.k4t("apply", "--yes")
    app(site, "restart", "bad\n", limit="0")
    failed = site.k4t("apply", "--yes", status=1)
    assert "web is rolled back: spec v1:" in failed.stdout
    assert containers(on(site)) == [NAME]
    seen(on(site), "one\n")
    again = site.json("apply", "--yes", status=3)
    assert (again["done"], "web is held" in again["not_done"][0]) == (0, True)
    app(site, "restart", "two\n", limit="0")
    site.k4t("apply", "--yes")
    assert site.json("plan")["steps"] == []
    assert site.json("status")["apps"][0]["held"] is None


def test_a_content_that_does_not_run_comes_to_no_second_replica(site: Site) -> None:
    """Restarted in place, the first one is lost until there is another content, and the message says so; the second
    one goes on with the old content, from whichever machine the next apply comes."""
    app(site, "restart", "one\n", limit="1", replicas=2)
    site.k4t("apply", "--yes")
    app(site, "restart", "bad\n", limit="1", replicas=2)
    failed = site.k4t("apply", "--yes", status=None)
    assert failed.returncode in (1, 3)
    assert "there is nothing to put back" in failed.stdout
    seen(on(site, "prod.web.1.1"), "one\n", "prod.web.1.1")
    other = site.copy(site.directory / "other")
    again = other.json("apply", "--yes", status=3)
    assert (again["done"], "web.0 can't be put back" in again["not_done"][0]) == (0, True)
    seen(on(site, "prod.web.1.1"), "one\n", "prod.web.1.1")
    app(other, "restart", "two\n", limit="1", replicas=2)
    other.k4t("apply", "--yes")
    assert other.json("plan")["steps"] == []


def test_replace_is_the_default(site: Site) -> None:
    """A new content is a new spec."""
    app(site, "replace", "one\n")
    site.k4t("apply", "--yes")
    app(site, "replace", "two\n")
    assert "create" in [step["action"] for step in site.json("plan")["steps"]]
    site.k4t("apply", "--yes")
    seen(on(site, "prod.web.0.2"), "two\n", "prod.web.0.2")


def test_a_changed_file_of_a_container_that_does_not_run_replaces_it(site: Site) -> None:
    """There is nobody to tell; and what would start must not start with the old content."""
    app(site, "SIGHUP", "one\n")
    site.k4t("apply", "--yes")
    on(site).docker(["kill", NAME])
    app(site, "SIGHUP", "two\n")
    site.k4t("apply", "--yes")
    seen(on(site, "prod.web.0.2"), "two\n", "prod.web.0.2")


def test_a_content_survives_a_restart_of_the_container(site: Site) -> None:
    """Docker mounts the same file again."""
    app(site, "SIGHUP", "one\n")
    site.k4t("apply", "--yes")
    app(site, "SIGHUP", "two\n")
    site.k4t("apply", "--yes")
    host = on(site)
    host.docker(["restart", "-t", "1", NAME])
    seen(host, "two\n")


def test_a_secret_can_be_brought_by_a_signal(site: Site) -> None:
    """A new value without a new container; still of mode 0400, and still nobody else's."""

    def give(value: str) -> None:
        argv = site.argv("secret", "set", "token")
        subprocess.run(argv, env=site.environment(), input=value, text=True, check=True, capture_output=True)

    give("first")
    file = '<container user="1234"/><file secret="token" target="/conf/a"'
    app(site, "SIGHUP", "", file=file)
    site.k4t("apply", "--yes")
    host = on(site)
    seen(host, "first")
    give("second, longer")
    assert apply_one(site, "refresh")["cause"] == "file /conf/a changed"
    seen(host, "second, longer")
    assert host.docker(["exec", NAME, "stat", "-c", "%a %u", "/conf/a"]).stdout.split() == ["400", "1234"]


def test_the_plan_can_be_done_by_hand(site: Site, tmp_path: Path) -> None:
    """`plan --commands` writes into the mounted file, tells the program, and leaves nothing for k4t to do."""
    shutil.copy(site.lab.known_hosts, site.db / "known_hosts")
    app(site, "SIGHUP", "one\n")
    site.k4t("apply", "--yes")
    app(site, "SIGHUP", "two\n")
    script = tmp_path / "by-hand"
    script.write_text(site.k4t("plan", "--commands").stdout)
    subprocess.run(["bash", str(script)], env=site.environment(), check=True, capture_output=True, timeout=60)
    seen(on(site), "two\n")
    assert site.json("plan")["steps"] == []
