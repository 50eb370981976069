"""Where a host is: the tree's words first, then the user's configuration as OpenSSH reads it, then the defaults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k4t.errors import HostUnreachable
from k4t.model.hosts import Ssh
from k4t.remote import ssh_config
from k4t.remote.ssh import _read_config
from k4t.remote.ssh_config import Resolver, Target

pytestmark = pytest.mark.unit

CONFIG = """
Host box
  HostName 10.0.0.9
  Port 2200
  User deploy
  IdentityFile ~/.ssh/special
  IdentitiesOnly yes
  HostKeyAlias the-box
  ConnectTimeout 3
Host far
  ProxyJump ops@bastion:2222,second
Host piped
  ProxyCommand relay %h %p %r %% %n
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def resolver(home: Path, config: str = "", *, client: bool = True) -> Resolver:
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    if config:
        (home / ".ssh" / "config").write_text(config)
        (home / ".ssh" / "config").chmod(0o600)
    path = os.environ["PATH"] if client else str(home)
    return Resolver({"HOME": str(home), "PATH": path}, _read_config)


def resolve(home: Path, ssh: Ssh, address: str = "10.0.0.1", *, client: bool = True) -> Target:
    return resolver(home, CONFIG, client=client).resolve("h1", ssh, address)


def test_defaults(tmp_path: Path) -> None:
    """Without any word: the node's address, port 22, the local user, the usual keys that exist."""
    home = resolver(tmp_path)
    (tmp_path / ".ssh" / "id_rsa").write_text("x")
    target = home.resolve("h1", Ssh(), "10.0.0.1")
    assert (target.host, target.port, target.connect_timeout_s, target.sudo) == ("10.0.0.1", 22, 10.0, False)
    assert target.identity_files == (str(tmp_path / ".ssh" / "id_rsa"),)
    assert target.user


@pytest.mark.parametrize("client", [True, False], ids=["ssh -G", "without the client"])
def test_configuration(tmp_path: Path, client: bool) -> None:
    """The configuration fills what the tree leaves open, with and without OpenSSH's client."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "special").write_text("x")
    target = resolve(tmp_path, Ssh(host="box"), client=client)
    assert (target.host, target.port, target.user) == ("10.0.0.9", 2200, "deploy")
    assert target.identity_files == (str(tmp_path / ".ssh" / "special"),)
    assert (target.identities_only, target.key_name, target.connect_timeout_s) == (True, "the-box", 3.0)


@pytest.mark.parametrize("client", [True, False], ids=["ssh -G", "without the client"])
def test_the_tree_comes_first(tmp_path: Path, client: bool) -> None:
    """What the tree says is not changed by the configuration."""
    ssh = Ssh(host="box", user="root", port=22, key="~/mine", connect_timeout_s=5.0, sudo=True)
    target = resolve(tmp_path, ssh, client=client)
    assert (target.port, target.user, target.named_key) == (22, "root", str(tmp_path / "mine"))
    assert (target.connect_timeout_s, target.sudo) == (5.0, True)


@pytest.mark.parametrize("client", [True, False], ids=["ssh -G", "without the client"])
def test_jumps(tmp_path: Path, client: bool) -> None:
    """Jumps come from the configuration, or from the tree, in order; each with its own user and port."""
    far = resolve(tmp_path, Ssh(host="far"), client=client)
    assert (far.jumps[0].user, far.jumps[0].port) == ("ops", 2222)
    assert [jump.host for jump in far.jumps] == ["bastion", "second"]
    own = resolve(tmp_path, Ssh(host="far", jump="box:99"), client=client)
    assert [(jump.user, jump.host, jump.port) for jump in own.jumps] == [("deploy", "10.0.0.9", 99)]
    assert resolve(tmp_path, Ssh(host="far", jump="none"), client=client).jumps == ()


def test_the_trees_key_is_offered_to_jumps(tmp_path: Path) -> None:
    """A key that only the tree names opens the jump host as well."""
    (tmp_path / "mine").write_text("x")
    target = resolve(tmp_path, Ssh(jump="other", key="~/mine"))
    assert target.jumps[0].identity_files == (str(tmp_path / "mine"),)
    assert target.jumps[0].named_key == ""


def test_ipv6_jump(tmp_path: Path) -> None:
    """A jump host may be an IPv6 address."""
    target = resolve(tmp_path, Ssh(jump="[fd00::1]:2222,root@fd00::2"))
    assert [(jump.host, jump.port) for jump in target.jumps] == [("fd00::1", 2222), ("fd00::2", 22)]


@pytest.mark.parametrize("jump", ["", "a:b", "@", "user@:22"])
def test_bad_jump(tmp_path: Path, jump: str) -> None:
    """What is no jump host is told, with how one is written."""
    with pytest.raises(HostUnreachable, match=r"is no jump host; it is written user@host:port"):
        resolve(tmp_path, Ssh(jump=f"ok,{jump}"))


def test_proxy_command_tokens(tmp_path: Path) -> None:
    """The tokens of a ProxyCommand are filled in."""
    target = resolve(tmp_path, Ssh(host="piped", user="u", port=7))
    assert target.proxy_command == "relay piped 7 u % piped"


def test_host_that_looks_like_an_option(tmp_path: Path) -> None:
    """A name can't smuggle an option into a command."""
    with pytest.raises(HostUnreachable, match="is no host name"):
        resolve(tmp_path, Ssh(host="-oProxyCommand=touch /tmp/x"))


def test_bad_configuration(tmp_path: Path) -> None:
    """What OpenSSH refuses is told in its words."""
    with pytest.raises(HostUnreachable, match=r"doesn't accept its configuration.*bad configuration option"):
        resolver(tmp_path, "Nonsense yes\n").resolve("h1", Ssh(), "10.0.0.1")


def test_include_without_the_client(tmp_path: Path) -> None:
    """Where OpenSSH's client is missing, an Include is refused by name instead of being overlooked."""
    (tmp_path / "other").write_text("Port 99\n")
    with pytest.raises(HostUnreachable, match=r"config:2: Include can't be followed"):
        resolver(tmp_path, f"# x\nInclude {tmp_path}/other\n", client=False).resolve("h1", Ssh(), "10.0.0.1")


def test_match_exec_without_the_client_is_refused(tmp_path: Path) -> None:
    """Where OpenSSH's client is missing, so is what would run the command of Match exec."""
    with pytest.raises(HostUnreachable, match=r"config:1: Match exec can't be asked"):
        resolver(tmp_path, 'Match exec "true"\n', client=False).resolve("h1", Ssh(), "10.0.0.1")


def test_nothing_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that changes nothing isn't asked about; one that might, is."""
    system = tmp_path / "ssh_config"
    monkeypatch.setattr(ssh_config, "SYSTEM_CONFIG", system)
    assert resolver(tmp_path)._nothing_to_ask
    (tmp_path / "d").mkdir()
    system.write_text("Include d/*.conf\nHost *\n SendEnv LANG\n HashKnownHosts yes\n")
    assert resolver(tmp_path)._nothing_to_ask
    (tmp_path / "d" / "x.conf").write_text("Host *\n  Port = 99\n")
    assert not resolver(tmp_path)._nothing_to_ask
    system.write_text("Include ~/x\n")
    assert not resolver(tmp_path)._nothing_to_ask


def test_agent_socket(tmp_path: Path) -> None:
    """The agent is the environment's, unless the configuration names another or none."""
    resolver(tmp_path, f"Host a\n IdentityAgent none\nHost b\n IdentityAgent {tmp_path}/agent\nHost c\n Port 1\n")
    asked = Resolver({"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SSH_AUTH_SOCK": "/x"}, _read_config)
    sockets = [asked.resolve("h", Ssh(host=host), "").agent_socket for host in ("a", "b", "c")]
    assert sockets == ["", str(tmp_path / "agent"), "/x"]
