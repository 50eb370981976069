"""Secrets on the way into containers, and nowhere else."""

from __future__ import annotations

import json
import os
import secrets as random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
PASSWORD = f"pw-{random.token_hex(8)}"
FILE_SECRET = f"file-{random.token_hex(8)}"
MORE = """\
  <env name="PASSWORD" secret="db-password"/>
  <file secret="token" target="/secrets/token"/>
  <container user="1234:1234"/>"""


def give(site: Site, name: str, value: str) -> str:
    """`k4t secret set` as a script does it; what it said."""
    done = subprocess.run(
        site.argv("secret", "set", name), env=site.environment(), input=value + "\n", capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert value not in done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def secret(site: Site) -> Iterator[Site]:
    """A tree with two secrets and an app that uses them."""
    give(site, "db-password", PASSWORD)
    give(site, "token", FILE_SECRET)
    site.app("web", more=MORE)
    yield site
    for host in site.lab.nodes:
        host.exec(["rm", "-rf", "/var/lib/k4t"])


def runs_on(site: Site, name: str = "prod.web.0.1") -> Host:
    return next(one for one in site.lab.nodes if name in containers(one))


def inspected(host: Host, name: str = "prod.web.0.1") -> Any:
    return json.loads(host.docker(["inspect", name]).stdout)[0]


def files_that_hold(host: Host, word: str, under: str) -> list[str]:
    found = host.exec(["grep", "-rlF", "-D", "skip", "--", word, under], check=False).stdout
    return sorted(found.split())


def test_a_container_gets_its_secrets(secret: Site, lab: Lab) -> None:
    """A variable has the value; a file has it too, of mode 0400, and only the container's user can read it."""
    secret.k4t("apply", "--yes")
    host = runs_on(secret)
    assert f"PASSWORD={PASSWORD}" in inspected(host)["Config"]["Env"]
    assert host.docker(["exec", "prod.web.0.1", "cat", "/secrets/token"]).stdout == FILE_SECRET
    seen = host.docker(["exec", "prod.web.0.1", "stat", "-c", "%a %u %g", "/secrets/token"]).stdout
    assert seen.split() == ["400", "1234", "1234"]
    other = host.docker(["exec", "-u", "4321", "prod.web.0.1", "cat", "/secrets/token"], check=False)
    assert other.returncode != 0
    source = next(mount["Source"] for mount in inspected(host)["Mounts"] if mount["Destination"] == "/secrets/token")
    assert host.exec(["stat", "-c", "%a %U", os.path.dirname(source)]).stdout.split() == ["700", "root"]
    assert secret.json("plan")["steps"] == []


def private(host: Host, site: Site) -> list[str]:
    """Containers that have files of their own on a node."""
    return sorted(host.exec(["ls", f"/var/lib/k4t/{site.id}/containers"]).stdout.split())


def test_the_files_of_a_container_that_was_removed_by_hand_go_with_the_next_apply(secret: Site) -> None:
    """Its replica is created again, and only what that one has stays on the node. No other container's is touched."""
    secret.app("api", port=8081, more=MORE)
    secret.k4t("apply", "--yes")
    host = runs_on(secret)
    host.exec(["mkdir", f"/var/lib/k4t/{secret.id}/containers/prod.web.7.3"])
    there = [name for name in private(host, secret) if ".api." in name]
    host.docker(["rm", "-f", "prod.web.0.1"])
    secret.node(host, inside='<label name="used">no</label>')
    secret.app("web", more=MORE + '<placement><require label="used">yes</require></placement>')
    other = next(one for one in secret.lab.nodes if one.name != host.name)
    secret.node(other, inside='<label name="used">yes</label>')
    secret.k4t("apply", "--yes")
    assert runs_on(secret).name == other.name
    assert private(host, secret) == there
    assert files_that_hold(host, FILE_SECRET, f"/var/lib/k4t/{secret.id}") == [
        path for path in files_that_hold(host, FILE_SECRET, "/var/lib/k4t") if ".api." in path
    ]
    assert secret.json("plan")["steps"] == []


def test_prune_takes_the_files_of_containers_that_are_no_more(secret: Site) -> None:
    """Where there is nothing to apply: shown first, and then gone; what runs keeps its own."""
    secret.k4t("apply", "--yes")
    host = runs_on(secret)
    orphan = f"/var/lib/k4t/{secret.id}/containers/prod.web.0.0"
    host.exec(["sh", "-c", f"mkdir {orphan} && echo hush > {orphan}/file"])
    assert "files of prod.web.0.0, which is no more" in secret.k4t("prune", status=64).stdout
    assert secret.json("prune", "--yes")["files"] == [{"node": host.name, "container": "prod.web.0.0"}]
    assert private(host, secret) == ["prod.web.0.1"]
    assert secret.k4t("prune", "--yes").stdout == "Nothing to prune.\n"


def test_a_value_is_nowhere_else(secret: Site, lab: Lab, tmp_path: Path) -> None:
    """No argument list, no file of the tree or of .k4t, no plan, status, log, audit or label; on the node only the
    container's own file and its configuration."""
    seen: list[str] = []
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seen, stop))
    watcher.start()
    try:
        said = [secret.k4t("plan").stdout, secret.json("plan")]
        printed = secret.k4t("plan", "--commands").stdout
        done = secret.k4t("apply", "--yes")
        secret.k4t("plan", "--save", str(secret.db.parent / "saved"))
        said += [(secret.db.parent / "saved").read_text(), printed]
        said += [done.stdout, done.stderr, secret.k4t("status", "-o", "json").stdout, secret.k4t("show", "web").stdout]
        said += [secret.k4t("secret", "list", "-o", "json").stdout]
    finally:
        stop.set()
        watcher.join()
    assert len(seen) > 50
    for value in (PASSWORD, FILE_SECRET):
        assert value not in "\n".join(seen)
        assert value not in repr(said)
        for path in (*secret.db.rglob("*"), *secret.home.rglob("*")):
            assert not path.is_file() or value.encode() not in path.read_bytes(), path
    host = runs_on(secret)
    labels = inspected(host)["Config"]["Labels"]
    assert set(json.loads(labels["io.k4t.secrets"])) == {"db-password", "token"}
    assert not {PASSWORD, FILE_SECRET} & set(json.dumps(labels).split('"'))
    own = files_that_hold(host, FILE_SECRET, "/var/lib/k4t")
    assert len(own) == 1
    assert "/containers/prod.web.0.1/" in own[0]
    assert files_that_hold(host, PASSWORD, "/var/lib/k4t") == []
    configured = files_that_hold(host, PASSWORD, "/var/lib/docker/containers")
    assert {os.path.basename(path) for path in configured} <= {"config.v2.json"}
    for place in ("/run", "/var/log", "/etc"):
        for value in (PASSWORD, FILE_SECRET):
            found = [path for path in files_that_hold(host, value, place) if "/containerd/" not in path]
            assert found == [], place


def _watch(seen: list[str], stop: threading.Event) -> None:
    """Every argument list and environment's owner on this machine and on the hosts, which are on it too."""
    while not stop.is_set():
        for process in Path("/proc").glob("[0-9]*"):
            try:
                seen.append((process / "cmdline").read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
        time.sleep(0.02)


def test_a_changed_secret_is_a_changed_spec(secret: Site) -> None:
    """The plan names the secret; the container is replaced, its file goes with it, and then nothing is left to do."""
    secret.k4t("apply", "--yes")
    host = runs_on(secret)
    give(secret, "token", "another")
    plan = secret.json("plan")
    assert {step["cause"] for step in plan["steps"] if step["action"] == "create"} == {"secret token changed"}
    secret.k4t("apply", "--yes")
    after = runs_on(secret, "prod.web.0.2")
    assert after.docker(["exec", "prod.web.0.2", "cat", "/secrets/token"]).stdout == "another"
    assert files_that_hold(host, FILE_SECRET, "/var/lib/k4t") == []
    assert secret.json("plan")["steps"] == []


def test_without_an_identity_it_cant_tell(secret: Site, tmp_path: Path) -> None:
    """Never “changed”: the plan is empty and warns; what needs the value stops before anything is begun."""
    secret.k4t("apply", "--yes")
    ci = secret.copy(tmp_path / "ci")
    (ci.home / ".config/k4t/identity").unlink()
    plan = ci.json("plan")
    assert plan["steps"] == []
    start = "web: can't tell whether secret db-password changed: no identity here; set K4T_IDENTITY"
    assert any(warning.startswith(start) for warning in plan["warnings"])
    ci.app("web", more=MORE + '\n  <env name="NEW">1</env>')
    assert {step["cause"] for step in ci.json("plan")["steps"] if step["action"] == "create"} == {"spec changed"}
    done = ci.k4t("apply", "--yes", status=1)
    assert "secret db-password (secrets/db-password.age): no identity here" in done.stderr
    assert containers(runs_on(secret)) == ["prod.web.0.1"]


def test_another_machine_with_an_identity_agrees(secret: Site, tmp_path: Path) -> None:
    """Digests are the same everywhere; adding a recipient changes no app."""
    secret.k4t("apply", "--yes")
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    secret.k4t("secret", "recipients", "add", f"{key}.pub")
    other = secret.copy(tmp_path / "other")
    (other.home / ".config/k4t/identity").unlink()
    (other.home / ".config/k4t/identity").write_bytes(key.read_bytes())
    (other.home / ".config/k4t/identity").chmod(0o600)
    plan = other.json("plan")
    assert (plan["steps"], plan["warnings"]) == ([], [])
    give(other, "db-password", "changed-elsewhere")
    causes = {step["cause"] for step in other.json("plan")["steps"] if step["action"] == "create"}
    assert causes == {"secret db-password changed"}


def test_references_are_watched_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is kept elsewhere gets the same digest, where it can be fetched."""
    give(site, "any", "thing")
    site.write("secrets/outside.xml", '<secret file="../outside"/>\n')
    outside = site.directory / "outside"
    outside.write_text("first\n")
    outside.chmod(0o600)
    site.app("web", more='  <env name="X" secret="outside"/>')
    site.k4t("apply", "--yes")
    assert site.json("plan")["steps"] == []
    outside.write_text("second\n")
    causes = {step["cause"] for step in site.json("plan")["steps"] if step["action"] == "create"}
    assert causes == {"secret outside changed"}
    outside.unlink()
    plan = site.json("plan")
    assert plan["steps"] == []
    assert any("can't tell whether secret outside changed" in warning for warning in plan["warnings"])
