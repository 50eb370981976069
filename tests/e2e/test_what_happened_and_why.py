"""Events, the audit log and explain tell what happened on real nodes, and why things are as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.lab import Lab

pytestmark = pytest.mark.integration

# --- events, audit -----------------------------------------------------------------------------------------


def test_events_tell_applies_and_what_docker_saw(site: Site, lab: Lab, tmp_path: Path) -> None:
    """In order of time: the apply with its message, also from another working copy; create, start, and a death."""
    site.app("web", replicas=1, more='  <container restart="no"/>')
    site.k4t("apply", "--yes", "-m", "first of all")
    lab.host("n1").docker(["kill", "prod.web.0.1"])
    found = site.json("events")["events"]
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)
    assert "serial 1: apply begins (done, 4 steps): first of all" in [one["what"] for one in found]
    seen = [one["what"] for one in found if one["subject"] == "prod.web.0.1"]
    assert seen[:2] == ["create", "start"]
    assert "die exit status 137" in seen
    assert len(site.k4t("events", "-n", "2").stdout.splitlines()) == 3
    (tmp_path / "clone").mkdir()
    assert "first of all" in site.copy(tmp_path / "clone").k4t("events").stdout
    assert site.json("events", "--since", "2099-01-01T00:00:00Z")["events"] == []


def test_the_audit_log_is_shown_and_a_changed_line_is_found(site: Site) -> None:
    """One line an apply; verify is content until someone edits the file, and then names the line after it."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes", "-m", "one")
    site.app("web", replicas=2)
    site.k4t("apply", "--yes", "-m", "two")
    assert [entry["message"] for entry in site.json("audit")["entries"]] == ["one", "two"]
    assert "two" in site.k4t("audit").stdout
    assert "2 lines" in site.k4t("audit", "verify").stdout
    log = site.db / ".k4t" / "audit.jsonl"
    log.write_text(log.read_text().replace('"one"', '"won"'))
    assert f"{log}:2:" in site.k4t("audit", "verify", status=1).stderr


# --- explain -----------------------------------------------------------------------------------------------


def test_explain_tells_why_an_app_is_where_and_how_it_is(published: Site, lab: Lab) -> None:
    """Why it stays and where it is published; of a sick replica the probe's answer, of one too many the reasons."""
    more = '<health interval="1s"><http port="http" path="/healthz"/></health><route port="http" domain="w.k4t.lab"/>'
    published.app("web", replicas=2, more=more)
    published.k4t("apply", "--yes")
    well = published.json("explain", "web")
    assert (well["wanted"], well["running"], well["healthy"]) == (2, 2, 2)
    assert [one["published"] for one in well["replicas"]] == [["gateway/default"], ["gateway/default"]]
    assert well["replicas"][0]["why"] == "runs there already, and may stay"
    assert well["steps"] == []
    published.k4t("exec", "web", "--replica", "1", "--", "rm", "/www/healthz")
    published.app("web", replicas=3, more=more)
    said = published.k4t("explain", "web").stdout
    assert "answers 404" in said
    assert "web.2" in said
    assert "n1: port tcp/8080" in said or "port 8080" in said
    assert "fits nowhere" in said
    assert "another node" in said
    assert "nope" in published.k4t("explain", "nope", status=64).stderr


def test_explain_shows_the_end_of_a_crash(site: Site) -> None:
    """Exit status, restarts, the tail of the log, and the command that shows more."""
    crash = "  <command><arg>/bin/sh</arg><arg>-c</arg><arg>echo no config; sleep 0.2; exit 3</arg></command>"
    site.app("web", replicas=1, more=crash)
    site.k4t("apply", "--yes", status=1)
    found = site.json("explain", "web")
    one = found["replicas"][0]
    assert one["insides"]["exit_code"] == 3
    assert "no config" in one["insides"]["log"]
    assert any("exit status 3" in sentence for sentence in found["helps"])
    assert "no config" in site.k4t("explain", "web").stdout


def test_explain_says_what_is_held(site: Site, lab: Lab) -> None:
    """A version that did not get healthy was taken back: the old one serves, and the two ways on are named."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    site.app("web", replicas=1, image=lab.push("sick", FAIL=1))
    site.k4t("apply", "--yes", status=None)
    found = site.json("explain", "web")
    assert found["held"].startswith("v1:")
    assert (found["running"], found["healthy"]) == (1, 1)
    assert any("--retry" in sentence for sentence in found["helps"])
    assert "is held" in site.k4t("explain", "web").stdout


def test_explain_tells_of_nodes_gateways_and_dns_servers(published: Site, lab: Lab) -> None:
    """What they hold and why, in step or not, what was withdrawn and added by hand; of a node that can't be asked why,
    what is still sent there, and what would help."""
    published.app("web", replicas=2, more='<route port="http" domain="w.k4t.lab"/><record/>')
    published.k4t("apply", "--yes")
    n1, gw1 = lab.host("n1"), lab.host("gw1")
    node = published.json("explain", "n1")
    assert (node["reachable"], node["closed"], node["given_up"], node["steps"]) == (True, "", "", [])
    assert [(one["container"]["app"], one["problem"]) for one in node["holds"]] == [("web", "")]
    assert node["holds"][0]["published"] == ["dns/default", "gateway/default"]
    assert (node["host"]["serial"], node["host"]["behind"], node["host"]["lock"]) == (1, "", "")
    assert {one["what"] for one in node["host"]["checks"] if one["ok"]} >= {"ssh", "docker"}
    entry = ["--cname", "web", "--ip", n1.address, "--port", "8080", "--why", "it burns"]
    gw1.exec(["/usr/local/bin/k4t-registrar", "--driver", "envoy", "withdraw", *entry], check=False)
    gateway = published.json("explain", "gateway/gw1")
    assert gateway["withdrawn"] == [f"{n1.address}:8080 by root: it burns"]
    assert gateway["host"]["also"] == ["dns/names"]
    (web,) = gateway["apps"]
    assert web["leads"] == ["w.k4t.lab /"]
    assert [one.partition(" ")[0] for one in web["endpoints"]] == [
        f"{lab.host(name).address}:8080" for name in ("n1", "n2")
    ]
    assert [one.endswith("withdrawn") for one in web["endpoints"]] == [True, False]
    shown = published.k4t("explain", "names").stdout
    assert "address web" in shown
    assert "in step" in shown
    assert "there is no gateway 'n1'" in published.k4t("explain", "gateway/n1", status=64).stderr
    published.node(lab.host("n2"), inside='<ssh port="9"/>')
    away = published.json("explain", "n2")
    said = published.k4t("explain", "node/n2").stdout
    assert (away["reachable"], away["holds"]) == (False, [])
    assert away["sent_to"] == [f"web.1 {lab.host('n2').address}:8080 (gateway/default, dns/default)"]
    assert "can't be asked" in said
    assert "k4t node dead n2 --allow unfenced:n2" in said
