"""This terminal, lent to a command elsewhere: raw while it runs, its size passed on, restored whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator

from k4t.node.exec import Session, Size

READ_BYTES = 16 * 1024


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def size() -> Size:
    columns, rows = shutil.get_terminal_size()
    return rows, columns


@contextlib.contextmanager
def raw() -> Iterator[None]:
    """Keys go through as they are, Ctrl-C too: the command's own terminal makes something of them."""
    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        tty.setraw(sys.stdin.fileno())
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


@contextlib.contextmanager
def resizing(session: Session) -> Iterator[None]:
    """Pass each new size on, and the present one once more: it may have changed since the command was begun.

    The signal itself wakes who does it (`signal.set_wakeup_fd`): a handler in Python would run only when the main
    thread comes back to it, and one that was just about to wait for output would not before the command says more.
    """
    woken, bell = socket.socketpair()
    bell.setblocking(False)

    def follow() -> None:
        with woken:
            session.resize(size())
            while woken.recv(READ_BYTES):
                session.resize(size())

    before = signal.signal(signal.SIGWINCH, lambda *_: None)  # any handler of ours: without one, nobody is woken
    rung = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=follow, name="terminal size", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(rung)
        signal.signal(signal.SIGWINCH, before)
        bell.close()


def feed(session: Session) -> None:
    """Standard input to the command until either ends, from a thread that nobody waits for."""

    def pump() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(sys.stdin.fileno(), READ_BYTES):
                if not session.send(data):
                    return
            session.end_input()

    threading.Thread(target=pump, name="standard input", daemon=True).start()


def show(session: Session) -> int:
    """The command's output as it comes, each stream to ours; its exit status."""
    for channel, data in session.output():
        stream = sys.stderr if channel == "stderr" else sys.stdout
        stream.buffer.write(data)
        stream.buffer.flush()
    return session.exit_status()


def attached(session: Session, *, interactive: bool, terminal: bool) -> int:
    """Input and output of this process are the command's, until it ends."""
    with contextlib.ExitStack() as stack:
        if terminal:
            stack.enter_context(raw())
            stack.enter_context(resizing(session))
        if interactive:
            feed(session)
        return show(session)
