"""One line of the login user's `authorized_keys` is written, replaced or taken away, by its comment. One file by
itself: `k4t monitor authorize` pipes it to python3.

Usage: python3 -IS -c "$(cat authorize.py)" MARK LINE USER NEEDED. LINE "": away with it. USER "": who is logged in,
before sudo too. NEEDED: a program that must be there, "" for none. Says in one line what was done. Everybody else's
lines, mode and owner of the file stay.
"""

import os
import pwd
import secrets
import stat
import sys
from typing import List, Optional, Tuple

MAX_BYTES = 1024 * 1024


class Unwilling(Exception):
    """It is not done; the text says why."""


def edited(lines: List[bytes], mark: bytes, line: bytes) -> List[bytes]:
    """Pure. Those of others stay as they are, where they are. Raises Unwilling when the same key is let in by a line of
    another comment: sshd takes the first that fits, whatever ours forbids."""
    theirs = [other for other in lines if not _is_ours(other, mark)]
    key = _blob(line)
    for number, other in enumerate(lines, start=1):
        if key and not _is_ours(other, mark) and not other.lstrip().startswith(b"#") and key in other.split():
            raise Unwilling("line %d lets the same key in without its restriction: take that line away first" % number)
    if not line:
        return theirs
    place = next((number for number, other in enumerate(lines) if _is_ours(other, mark)), len(lines))
    before = [other for other in lines[:place] if not _is_ours(other, mark)]
    return [*before, line, *theirs[len(before) :]]


def _is_ours(line: bytes, mark: bytes) -> bool:
    return line.split()[-1:] == [mark] and not line.lstrip().startswith(b"#")


def _blob(line: bytes) -> bytes:
    """The base64 of the key in a line of ours: its last word but one."""
    return b"".join(line.split()[-2:-1])


def read(path: str) -> Tuple[bytes, Optional[os.stat_result]]:
    """Raises Unwilling for what is no regular file, and for one of more than MAX_BYTES."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unwilling("%s is no regular file" % path)
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Unwilling("%s is larger than %d bytes" % (path, MAX_BYTES))
    return data, status


def write(path: str, data: bytes, mode: int, owner: Tuple[int, int]) -> None:
    """As a whole or not at all."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, ".k4t-%s" % secrets.token_hex(6))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if owner != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def carry_out(mark: str, line: str, user: str, needed: str) -> str:
    if line and needed and not os.path.exists(needed):
        raise Unwilling("there is no %s" % needed)
    who = pwd.getpwnam(user or os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name)
    directory = os.path.join(who.pw_dir, ".ssh")
    path = os.path.join(directory, "authorized_keys")
    owner = (who.pw_uid, who.pw_gid)
    data, status = read(path)
    lines = data.split(b"\n")
    lines = lines[:-1] if lines[-1] == b"" else lines
    wanted = edited(lines, mark.encode(), line.encode())
    if wanted == lines:
        return "nothing to do"
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
        if owner != (os.geteuid(), os.getegid()):
            os.chown(directory, *owner)
    mode = stat.S_IMODE(status.st_mode) if status else 0o600
    write(path, b"".join(one + b"\n" for one in wanted), mode, (status.st_uid, status.st_gid) if status else owner)
    return "wrote %s" % path


def main(mark: str, line: str, user: str, needed: str) -> int:
    try:
        print(carry_out(mark, line, user, needed))  # noqa: T201
    except Unwilling as unwilling:
        sys.stderr.write("%s\n" % unwilling)
        return 1
    except (OSError, KeyError) as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


if __name__ == "__main__" and len(sys.argv) == 5:
    sys.exit(main(*sys.argv[1:]))
