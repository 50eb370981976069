"""The lab by hand: python -m tests.lab up --nodes 4 --gateways 1; … ssh n1; … down."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.lab import state
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import Lab

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    except subprocess.TimeoutExpired as error:
        print(f"lab: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    up = verbs.add_parser("up", help="bring a lab up; it stays until `down`")
    up.add_argument("--name", default="lab", help="which lab (default: lab)")
    up.add_argument("--nodes", type=int, default=2, metavar="N", help="Docker hosts n1… (default 2)")
    up.add_argument("--gateways", type=int, default=0, metavar="N", help="hosts gw1… with envoy and dnsmasq on PATH")
    up.add_argument("--dns", type=int, default=0, metavar="N", help="hosts dns1…, likewise")
    up.add_argument("--no-registry", dest="registry", action="store_false", help="nodes load the image tiny:1 instead")
    up.add_argument(
        "--extra", action="append", default=[], metavar="NAME", help="one more host with sshd only; repeatable"
    )
    up.set_defaults(run=_up)

    _verb(verbs, "down", _down, "take it down; nothing is left")
    _verb(verbs, "status", _status, "one line per host, of all labs without --name", default_name=None)
    _verb(verbs, "env", _env, 'shell variables and an ssh that finds the keys: eval "$(python -m tests.lab env)"')
    _verb(verbs, "exec", _exec, "run a command in a host, as root, without SSH", "host", "command...")
    _verb(verbs, "spawn", _spawn, "start a background process in a host", "host", "process", "command...")
    _verb(verbs, "stop", _stop, "end a spawned process", "host", "process")
    _verb(verbs, "ssh", _ssh, "log in to a host with the lab's key", "host", "command...")
    _verb(verbs, "kill", lambda o: _host(o).power_off(), "pull the plug of a host", "host")
    _verb(verbs, "start", lambda o: _host(o).power_on(), "power it on again", "host")
    net = _verb(verbs, "net", _net, "cut or restore a host's network")
    net.add_argument("direction", choices=["up", "down"])
    net.add_argument("host")
    push = _verb(verbs, "push", _push, "make a variant of the tiny image available: push 2 VER=2", "tag")
    push.add_argument("variables", nargs="*", metavar="NAME=VALUE")
    return parser


def _verb(
    verbs: Verbs,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
    *arguments: str,
    default_name: str | None = "lab",
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text)
    verb.add_argument("--name", default=default_name, help="which lab (default: lab)")
    for argument in arguments:
        if argument.endswith("..."):
            verb.add_argument(argument[:-3], nargs=argparse.REMAINDER)
        else:
            verb.add_argument(argument)
    verb.set_defaults(run=run)
    return verb


def _host(options: argparse.Namespace) -> Host:
    return Lab.attach(options.name).host(options.host)


def _up(options: argparse.Namespace) -> None:
    lab = Lab(
        options.name,
        nodes=options.nodes,
        gateways=options.gateways,
        dns=options.dns,
        registry=options.registry,
        extra=tuple(options.extra),
    )
    lab.up(by_hand=True)
    _print(lab)
    print(f"image {lab.image}; keys and logs in {lab.directory}; the machine itself is {lab.address}")


def _down(options: argparse.Namespace) -> None:
    if options.name in state.names():
        Lab.attach(options.name).down()
    print(f"lab {options.name} is down")


def _status(options: argparse.Namespace) -> None:
    names = [options.name] if options.name else state.names()
    for name in names:
        _print(Lab.attach(name))
    if not names:
        print("no lab is up")


def _print(lab: Lab) -> None:
    print(f"lab {lab.name}")
    for host in lab.hosts:
        print(f"  {host.name:12} {host.address:15} {host.address6:15} {'on' if host.is_on else 'off'}")


def _env(options: argparse.Namespace) -> None:
    lab = Lab.attach(options.name)
    programs = lab.directory / "bin"
    programs.mkdir(exist_ok=True)
    for program in ("ssh", "scp", "sftp"):
        script = programs / program
        script.write_text(f'#!/bin/sh\nexec /usr/bin/{program} -F {shlex.quote(str(lab.ssh_config))} "$@"\n')
        script.chmod(0o755)
    values = {
        "LAB": lab.directory,
        "LAB_KEY": lab.key,
        "LAB_KNOWN_HOSTS": lab.known_hosts,
        "LAB_IMAGE": lab.image,
        "PATH": f"{programs}:{os.environ.get('PATH', '/usr/bin:/bin')}",
    }
    for key, value in values.items():
        print(f"export {key}={shlex.quote(str(value))}")


def _exec(options: argparse.Namespace) -> int:
    return subprocess.run([*_host(options).enter(), *_command(options)], check=False).returncode


def _spawn(options: argparse.Namespace) -> None:
    host = _host(options)
    pid = host.spawn(options.process, _command(options))
    print(f"{host.name}: {options.process} runs as {pid}; log {host.log(options.process)}")


def _stop(options: argparse.Namespace) -> None:
    _host(options).stop(options.process)


def _ssh(options: argparse.Namespace) -> int:
    lab = Lab.attach(options.name)
    lab.host(options.host)
    return subprocess.run(["ssh", "-F", str(lab.ssh_config), options.host, *options.command], check=False).returncode


def _net(options: argparse.Namespace) -> None:
    host = _host(options)
    (host.restore if options.direction == "up" else host.cut)()


def _push(options: argparse.Namespace) -> None:
    for variable in options.variables:
        if "=" not in variable:
            raise LabError(f"{variable!r}: write NAME=VALUE")
    print(Lab.attach(options.name).push(options.tag, **dict(v.split("=", 1) for v in options.variables)))


def _command(options: argparse.Namespace) -> list[str]:
    command: list[str] = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise LabError("no command was given")
    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
