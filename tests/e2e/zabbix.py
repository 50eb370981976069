"""A whole Zabbix of the test's own: PostgreSQL, zabbix_server and the frontend's API, on loopback, in a directory that
goes with it. Everything runs as the user `zabbix` and ends with the test, also when that is killed."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

USER = "zabbix"
SQL = Path("/usr/share/zabbix-server-pgsql")
STOCK = frozenset({
    "role", "role_rule", "users", "usrgrp", "users_groups", "hstgrp", "config", "config_autoreg_tls", "globalmacro",
    "graph_theme", "regexps", "expressions",
})  # fmt: skip
"""What of the stock data is loaded: all but Zabbix's own templates, 100,000 rows that nobody here looks at."""
POSTGRES = """\
listen_addresses = ''
unix_socket_directories = '{directory}'
fsync = off
synchronous_commit = off
full_page_writes = off
"""
SERVER = """\
DBHost={directory}
DBName=zabbix
DBUser=zabbix
ListenIP=127.0.0.1
ListenPort={port}
LogType=console
PidFile={directory}/server.pid
SocketDir={directory}
FpingLocation=/bin/true
CacheUpdateFrequency=1
StartPollers=2
StartPollersUnreachable=1
StartTrappers=2
StartPreprocessors=2
StartDBSyncers=2
StartDiscoverers=0
StartPingers=0
StartHTTPPollers=0
StartODBCPollers=0
HousekeepingFrequency=0
CacheSize=32M
Timeout=30
ValueCacheSize=16M
"""
PHP = """\
<?php
$DB['TYPE'] = 'POSTGRESQL';
$DB['SERVER'] = '{directory}';
$DB['PORT'] = '0';
$DB['DATABASE'] = 'zabbix';
$DB['USER'] = 'zabbix';
$DB['PASSWORD'] = '';
$DB['SCHEMA'] = '';
$DB['DOUBLE_IEEE754'] = true;
$ZBX_SERVER = '127.0.0.1';
$ZBX_SERVER_PORT = '{port}';
$IMAGE_FORMAT_DEFAULT = IMAGE_FORMAT_PNG;
"""


WHOLE = ("setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child")
"""Whatever such a program starts ends with it, and it ends with us. (PostgreSQL would leave shared memory behind.)"""
LAST = "--pdeathsig=KILL"
"""Another user's process forgets what --kill-child told it."""
AGENT = """\
Server=127.0.0.1
ServerActive=
ListenIP=127.0.0.1
ListenPort={port}
Hostname=agent
StartAgents=1
LogType=console
PidFile={directory}/agent.pid
AllowRoot=1
Timeout=30
UserParameter={parameter}
"""
RULES: dict[str, dict[str, bool]] = {
    name: {"createMissing": True, "updateExisting": True, "deleteMissing": True}
    for name in ("items", "discoveryRules", "triggers", "graphs", "valueMaps")
} | {
    "templates": {"createMissing": True, "updateExisting": True}, "groups": {"createMissing": True}
}  # fmt: skip
"""As the frontend's own import has them, when all boxes are ticked."""


class ApiError(Exception):
    """The API refused a call."""


class Zabbix:
    """`port`: where values are sent; `url`: of the API. `start` before anything else, `end` whatever happens."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="k4t-zabbix-"))
        self.port, self.web = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.web}/api_jsonrpc.php"
        self.started: list[subprocess.Popen[bytes]] = []
        self.starting: Future[None]
        self._token: str | None = None
        shutil.chown(self.directory, USER, USER)

    def start(self) -> None:
        self._database()
        self._write("server.conf", SERVER)
        self._write("etc/zabbix.conf.php", PHP)
        self._run("server", [*WHOLE, *as_user(LAST), "zabbix_server", "-f", "-c", str(self.directory / "server.conf")])
        # Debian's frontend has one place for its settings: here another is there, for this process alone
        mounted = f"mount --bind {self.directory}/etc /etc/zabbix && exec {' '.join(as_user(LAST))} "
        mounted += f"php -d max_execution_time=300 -d post_max_size=64M -S 127.0.0.1:{self.web} -t /usr/share/zabbix"
        self._run("php", [*WHOLE, "--mount", "--propagation", "private", "sh", "-c", mounted])
        self.until(self._login, "the frontend answers")
        self.until(lambda: answers(self.port), "the server takes connections")

    def end(self) -> None:
        """The server first: the database is what it writes to."""
        for process in reversed(self.started):
            process.send_signal(signal.SIGQUIT if process is self.started[0] else signal.SIGKILL)
            process.wait(timeout=60)
        shutil.rmtree(self.directory, ignore_errors=True)

    def api(self, method: str, params: Any) -> Any:
        """Raises ApiError with what the API says."""
        call: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        if self._token is not None:
            call["auth"] = self._token
        request = urllib.request.Request(self.url, json.dumps(call).encode(), {"Content-Type": "application/json-rpc"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 - loopback alone
            said = answer.read().decode()
        try:
            found = json.loads(said)
        except ValueError:
            raise ApiError(f"{method}: {said[:2000]}") from None
        if "error" in found:
            raise ApiError(f"{method}: {found['error']['message']} {found['error']['data']}")
        return found["result"]

    def imported(self, source: str) -> None:
        assert self.api("configuration.import", {"format": "yaml", "rules": RULES, "source": source}) is True

    def host(
        self, name: str, template: str, macros: Mapping[str, str] | None = None, *, agent_port: int = 0
    ) -> Watched:
        """A new one, known to the server when this returns."""
        (found,) = self.api("template.get", {"filter": {"host": template}, "output": ["templateid"]})
        (group,) = self.api("hostgroup.get", {"filter": {"name": "Linux servers"}, "output": ["groupid"]})
        interface = {"type": 1, "main": 1, "useip": 1, "ip": "127.0.0.1", "dns": "", "port": str(agent_port)}
        made = self.api("host.create", {
            "host": name, "groups": [{"groupid": group["groupid"]}], "templates": [found],
            "interfaces": [interface] if agent_port else [],
            "macros": [{"macro": f"{{$K4T.{macro}}}", "value": value} for macro, value in (macros or {}).items()],
        })  # fmt: skip
        return Watched(self, name, made["hostids"][0])

    def agent(self, parameter: str) -> int:
        """An agent with this UserParameter, as root; its port."""
        port = free_port()
        file = self.directory / "agent.conf"
        file.write_text(AGENT.format(directory=self.directory, port=port, parameter=parameter))
        self._run("agent", [*WHOLE, "zabbix_agentd", "-f", "-c", str(file)])
        self.until(lambda: answers(port), "the agent answers")
        return port

    def until(self, asked: Callable[[], object], what: str, timeout_s: float = 90) -> Any:
        """What is asked for, once it is there."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := asked()):
            ended = [process.args for process in self.started if process.poll() is not None]
            assert not ended, f"{ended} ended\n{self.log()}"
            assert time.monotonic() < deadline_s, f"not in {timeout_s:g} s: {what}\n{self.log()}"
            time.sleep(0.2)
        return found

    def log(self) -> str:
        """The end of what each process said."""
        return "\n".join(f"--- {file.name}\n{file.read_text()[-3000:]}" for file in self.directory.glob("*.log"))

    def _login(self) -> bool:
        try:
            self._token = self.api("user.login", {"username": "Admin", "password": "zabbix"})
        except OSError:
            return False
        return True

    def _database(self) -> None:
        data, programs = self.directory / "data", postgres()
        initdb = [
            f"{programs}/initdb",
            "-D",
            str(data),
            "-A",
            "trust",
            "-U",
            USER,
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ]
        subprocess.run([*as_user(), *initdb], check=True, capture_output=True, cwd="/")
        self._write("data/postgresql.auto.conf", POSTGRES)
        self._run("postgres", [*as_user("--pdeathsig=QUIT"), f"{programs}/postgres", "-D", str(data)])
        socket_file = self.directory / ".s.PGSQL.5432"
        self.until(lambda: socket_file.exists() and self._sql("", "postgres"), "the database is there")
        assert self._sql("CREATE DATABASE zabbix", "postgres"), self.log()
        schema = gzip.decompress((SQL / "schema.sql.gz").read_bytes()).decode()
        data_sql = gzip.decompress((SQL / "data.sql.gz").read_bytes()).decode()
        assert self._sql(f"BEGIN;{schema};{stock(data_sql)};COMMIT;", "zabbix"), self.log()

    def _sql(self, text: str, database: str) -> bool:
        argv = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-U", USER, database]
        done = subprocess.run([*as_user(), *argv], input=text.encode(), capture_output=True, check=False, cwd="/")
        (self.directory / "psql.log").write_bytes(done.stderr)
        return done.returncode == 0

    def _write(self, name: str, text: str) -> None:
        file = self.directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            text.format(directory=self.directory, port=self.port)
            if "<?php" not in text
            else text.replace("{directory}", str(self.directory)).replace("{port}", str(self.port))
        )
        file.chmod(0o644)

    def _run(self, name: str, argv: Sequence[str]) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        self.started.append(process)


class Watched:
    """One host in Zabbix."""

    def __init__(self, zabbix: Zabbix, name: str, id: str) -> None:
        self.zabbix, self.name, self.id = zabbix, name, id

    def values(self) -> dict[str, str]:
        """The last value of each item, by its key."""
        return {key: one["lastvalue"] for key, one in self.items().items()}

    def items(self) -> dict[str, dict[str, str]]:
        output = ["key_", "name", "lastvalue", "lastclock", "state", "error"]
        return {one["key_"]: one for one in self.zabbix.api("item.get", {"hostids": self.id, "output": output})}

    def problems(self) -> dict[str, int]:
        """Severity (4 high, 3 average, 2 warning, 1 information) by name."""
        found = self.zabbix.api("problem.get", {"hostids": self.id, "output": ["name", "severity"]})
        return {one["name"]: int(one["severity"]) for one in found}

    def names(self, method: str) -> set[str]:
        """Of its triggers or graphs."""
        word = "description" if method == "trigger.get" else "name"
        return {one[word] for one in self.zabbix.api(method, {"hostids": self.id, "output": [word]})}


def as_user(*options: str) -> list[str]:
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *options]


def postgres() -> Path:
    """Debian's programs of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda one: int(one.parts[4]))
    return found[-1].parent


def stock(text: str) -> str:
    """Of the stock data, the statements that fill tables of STOCK. A value may have lines of its own."""
    return "".join(one for one in statements(text) if one.split(maxsplit=3)[2] in STOCK)


def statements(text: str) -> Iterator[str]:
    found = re.split(r"^(?=INSERT INTO )", text.replace("\nCOMMIT;", "\n"), flags=re.MULTILINE)
    yield from (one for one in found if one.startswith("INSERT INTO "))


def free_port() -> int:
    """Below 32768: zabbix_server takes no other."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as listening, suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def answers(port: int) -> bool:
    with socket.socket() as dialed:
        dialed.settimeout(2)
        return dialed.connect_ex(("127.0.0.1", port)) == 0
