"""One line of authorized_keys: whose it is, where it goes, and what is left alone."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from k4t.command import Completed
from k4t.errors import StepError, Usage
from k4t.monitor.acting import keys
from k4t.registrar import authorize
from k4t.remote import restricted
from k4t.tree import signing

pytestmark = pytest.mark.unit
MARK = "k4t-monitor-k7f3q2m9"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVq2xw9"
OURS = f'restrict,command="x --cluster k7f3q2m9 forced" {KEY} {MARK}'
THEIRS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIother ann@laptop"
Run = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the user that logs in."""
    who = SimpleNamespace(pw_dir=str(tmp_path), pw_uid=os.geteuid(), pw_gid=os.getegid(), pw_name="deploy")
    monkeypatch.setattr(pwd, "getpwnam", {"deploy": who}.__getitem__)
    monkeypatch.setenv("SUDO_USER", "deploy")
    return tmp_path


def lines(*given: str) -> list[bytes]:
    return [line.encode() for line in given]


def test_it_replaces_its_own_line_in_its_place() -> None:
    """By its comment, whatever is in it: an older key, or none of our options. A second one of it goes."""
    older = OURS.replace("AAAAC3", "AAAAB3")
    by_hand = f"{KEY} {MARK}"
    found = authorize.edited(lines(THEIRS, older, "# note", by_hand), MARK.encode(), OURS.encode())
    assert found == lines(THEIRS, OURS, "# note")
    assert authorize.edited(found, MARK.encode(), OURS.encode()) == found


def test_others_lines_stay() -> None:
    """Those of another cluster's monitor, comments, what can't be read, and the order of all."""
    others = [
        THEIRS,
        f"restrict {KEY}AA {MARK}2",
        f"# {MARK}",
        "",
        "no key at all",
        "\udcff".encode(errors="replace").decode(),
    ]
    found = authorize.edited(lines(*others), MARK.encode(), OURS.encode())
    assert found == lines(*others, OURS)
    assert authorize.edited(found, MARK.encode(), b"") == lines(*others)


def test_a_key_that_is_let_in_without_restriction_is_refused() -> None:
    """sshd takes the first line that fits."""
    with pytest.raises(authorize.Unwilling, match="line 2 lets the same key in"):
        authorize.edited(lines(THEIRS, f"{KEY} somebody"), MARK.encode(), OURS.encode())
    assert authorize.edited(lines(f"# {KEY} somebody"), MARK.encode(), OURS.encode())[-1] == OURS.encode()


def test_the_file_is_made_and_keeps_its_mode(home: Path) -> None:
    """For sshd's eyes (0700, 0600) where there is none; else as it was. Twice is nothing to do."""
    path = home / ".ssh/authorized_keys"
    assert authorize.carry_out(MARK, "", "", "") == "nothing to do"
    assert authorize.carry_out(MARK, OURS, "", "/bin/sh") == f"wrote {path}"
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path.parent, path)] == [0o700, 0o600]
    assert authorize.carry_out(MARK, OURS, "", "") == "nothing to do"
    path.write_bytes(f"{THEIRS}".encode())  # no end of line
    path.chmod(0o640)
    authorize.carry_out(MARK, OURS, "", "")
    assert path.read_text() == f"{THEIRS}\n{OURS}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    authorize.carry_out(MARK, "", "deploy", "")
    assert path.read_text() == f"{THEIRS}\n"
    assert sorted(one.name for one in path.parent.iterdir()) == ["authorized_keys"]


def test_what_is_no_plain_file_is_left_alone(home: Path) -> None:
    """A link, a FIFO, one that is too large; and where the registrar is missing, nothing is promised."""
    path = home / ".ssh/authorized_keys"
    path.parent.mkdir()
    target = home / "elsewhere"
    target.write_text("x\n")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        authorize.carry_out(MARK, OURS, "", "")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(authorize.Unwilling, match="no regular file"):
        authorize.carry_out(MARK, OURS, "", "")
    path.unlink()
    path.write_bytes(b"#" * (authorize.MAX_BYTES + 1))
    with pytest.raises(authorize.Unwilling, match="larger than"):
        authorize.carry_out(MARK, OURS, "", "")
    with pytest.raises(authorize.Unwilling, match="there is no /no/such"):
        authorize.carry_out(MARK, OURS, "", "/no/such")
    assert target.read_text() == "x\n"


def test_it_runs_as_one_file_by_itself() -> None:
    """As a host is asked: one line says what is wrong, exit status 1, and the client names the remedy."""
    argv = restricted.editing("k7f3q2m9", OURS, user="no-such-user", needed="")
    done = subprocess.run([sys.executable, *argv[1:]], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no-such-user" in done.stderr
    with pytest.raises(StepError, match="authorized_keys is as it was: there is no /usr/local/bin/k4t-reg") as refused:
        restricted.told(Completed(1, b"", b"there is no /usr/local/bin/k4t-registrar\n"), "gw1")
    assert refused.value.remedy == "run k4t gateway install and k4t dns install first"


def test_only_a_plain_public_key_is_taken() -> None:
    """One line of the right kind; its comment and options never get into anybody's file."""
    public = signing.openssh_public(signing.new_openssh())
    assert restricted.public_key(f"{public} whatever it's called\n") == public
    for wrong in (
        "", f"{public}\n{public}", f'command="sh" {public}', f"{public}A", public[:-2],
        public.replace("ssh-ed", "ssh-rs"), f"{public} x\x1b[2J", "ssh-ed25519 " + "A" * 68,
        public.replace("AAAAC3", "AAAA*3"),
    ):  # fmt: skip
        with pytest.raises(Usage, match="no public key of a monitor"):
            restricted.public_key(wrong)


def test_a_line_says_what_a_shell_and_sshd_both_understand() -> None:
    """The command is quoted for the shell; what would end sshd's quotes is refused. sudo passes on what was asked."""
    line = restricted.forced_line(KEY, "k7f3q2m9", restricted.registrar_argv("k7f3q2m9"))
    assert line == (
        'restrict,command="/usr/local/bin/k4t-registrar --cluster k7f3q2m9 --verbs withdraw,restore --by k4t-monitor'
        f' forced" {KEY} {MARK}'
    )
    assert "'/srv/my tree'" in restricted.forced_line(KEY, "k7f3q2m9", ["k4t", "--db", "/srv/my tree"])
    sudo = restricted.forced_line(KEY, "k7f3q2m9", ["true"], sudo=True)
    assert r'command="sudo -n -- env \"SSH_ORIGINAL_COMMAND=$SSH_ORIGINAL_COMMAND\" true"' in sudo
    for wrong in ('/a"b', "/a\\b", "/a\nb"):
        with pytest.raises(Usage, match="can't be written"):
            restricted.forced_line(KEY, "k7f3q2m9", ["k4t", "--db", wrong])


def test_what_is_asked_goes_through_sudo_as_one_word(tmp_path: Path) -> None:
    """sudo keeps no environment; a shell stands in between. Whatever is in it, it arrives as it was."""
    fake, shown = tmp_path / "sudo", tmp_path / "show"
    fake.write_text('#!/bin/sh\n[ "$1 $2" = "-n --" ] || exit 9\nshift 2\nexec env -i "PATH=$PATH" "$@"\n')
    shown.write_text('#!/bin/sh\nprintf "%s|%s" "$SSH_ORIGINAL_COMMAND" "$*"\n')
    for path in (fake, shown):
        path.chmod(0o755)
    line = restricted.forced_line(KEY, "k7f3q2m9", [str(shown), "--cluster", "x y"], sudo=True)
    command = line.partition('command="')[2].partition(f'" {KEY}')[0].replace('\\"', '"')  # as sshd reads it
    for asked in ("withdraw --many --why='a b'", '$(id) `id` "; id; "', "*", "A=B -n -- x", ""):
        environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SSH_ORIGINAL_COMMAND": asked}
        done = subprocess.run(
            ["sh", "-c", command], env=environ, capture_output=True, text=True, check=True, timeout=30
        )
        assert done.stdout == f"{asked}|--cluster x y"


def test_a_key_of_its_own_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH's own format, for this user alone; what ssh-keygen makes of it is what is printed."""
    monkeypatch.setenv("K4T_KEYS", str(tmp_path))
    assert keys.private_file("k7f3q2m9") is None
    line, made = keys.ensure("k7f3q2m9")
    path = keys.private_file("k7f3q2m9")
    assert made
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.ensure("k7f3q2m9") == (line, False)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
    assert line.split()[:2] == shown.split()[:2]
    assert line.endswith(f" {MARK}")
    listed = subprocess.run(["ssh-keygen", "-l", "-f", f"{path}.pub"], capture_output=True, text=True, check=True)
    assert restricted.fingerprint(line) in listed.stdout
