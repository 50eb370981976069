"""Every error k4t raises on purpose, with the exit status it ends a run with.

K4tError                     1   failed; what served before still serves
├── Usage                   64   the command line asks for what cannot be
│   └── NeedsTerminal       64   a question with nobody there to answer it
├── InvalidTree             65   the tree holds errors (all of them, each with file and line)
├── Unreachable             69   something needed does not answer: unknown, never empty
│   ├── HostUnreachable     69   no SSH connection (time-out, refused, no route, silent, no such name)
│   ├── ConnectionLost      69   it was there, and went away; what was under way is in doubt
│   ├── DockerUnavailable   69   SSH works, the Engine does not answer
│   │   └── DockerHangs     69   it takes the question, and no answer comes in time
│   └── ParticipantAway     69   a gateway or DNS server that cannot be asked
├── Locked                  75   another run holds the lock: who, where, since when
├── HostRefused             77   a host says no
│   ├── HostKeyUnknown      77   not enrolled
│   ├── HostKeyChanged      77   not the key that was enrolled, or a revoked one
│   ├── LoginRefused        77   user and key are not accepted
│   └── SudoRefused         77   logged in, but sudo wants a password or forbids it
├── Unsafe                   4   needs an --allow that was not given
├── Partial                  3   done in part; what is not is named
├── Interrupted            130   stopped by the operator
├── LogRefused               1   the redo log is damaged before its end, or can't be written: nothing was sent
├── SecretUnavailable        1   its value can't be had here: no identity, not set, the command failed
├── BadCopy                  1   a copy of the tree that is not to be used: altered, foreign, not certified, broken
├── NotCertified             1   this machine may sign no copies: the cluster's key has not certified its own
└── StepError                1   one external call did not do what it should
    ├── EngineRefused        1   the Docker Engine said no
    ├── ImageNotFound        1
    ├── PullFailed           1
    │   ├── RegistryAway     1   the registry does not answer
    │   └── RegistryRefused  1   the registry wants another login
    ├── PortTaken            1
    ├── AddressTaken         1   as a port: the pinned one, or all of a node's range
    ├── NameTaken            1   the container's name is held by one that is not ours
    ├── Unhealthy            1   it runs, and does not get healthy
    ├── HostFull             1   no space left
    ├── AnswerTooLong        1   a command says more than anybody asked for, maybe without an end
    ├── RegistrarMismatch    1   missing, altered or newer than this k4t reads
    ├── Overtaken            1   a newer run has fenced this one off
    ├── NotPrepared          1   nothing of that transaction is staged or live there
    ├── VendorRefused        1   the gateway's or DNS server's own checker said no
    └── Differs              1   what is served is not what was published
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class K4tError(Exception):
    """What went wrong and what to do about it; `exit_status` is the run's, unless a graver one holds."""

    exit_status = 1

    def __init__(self, message: str, remedy: str = "", *, host: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.host = host

    @property
    def words(self) -> str:
        """Message and remedy without the host, where the host is named already."""
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def __str__(self) -> str:
        return f"{self.host}: {self.words}" if self.host else self.words


class Usage(K4tError):
    exit_status = 64


class NeedsTerminal(Usage):
    pass


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing wrong with the tree. `file` is relative to the tree; `line` counts from 1, 0 means the whole file."""

    file: str
    line: int
    code: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}; {self.remedy}" if self.remedy else f"{place}: {self.message}"


class InvalidTree(K4tError):
    """All errors found in one reading, in order of file and line."""

    exit_status = 65

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(findings))
        super().__init__("\n".join(str(finding) for finding in self.findings))


class Unreachable(K4tError):
    exit_status = 69


class HostUnreachable(Unreachable):
    """`why`, where it is known: silent (no packet came back), no-route, refused, no-name, mute (it accepts and says
    nothing)."""

    def __init__(self, message: str, remedy: str = "", *, host: str = "", why: str = "") -> None:
        super().__init__(message, remedy, host=host)
        self.why = why


class ConnectionLost(Unreachable):
    pass


class DockerUnavailable(Unreachable):
    pass


class DockerHangs(DockerUnavailable):
    pass


class ParticipantAway(Unreachable):
    pass


class Locked(K4tError):
    exit_status = 75


class HostRefused(K4tError):
    exit_status = 77


class HostKeyUnknown(HostRefused):
    pass


class HostKeyChanged(HostRefused):
    pass


class LoginRefused(HostRefused):
    pass


class SudoRefused(HostRefused):
    pass


class Unsafe(K4tError):
    exit_status = 4


class Partial(K4tError):
    exit_status = 3


class Interrupted(K4tError):
    exit_status = 130


class LogRefused(K4tError):
    pass


class SecretUnavailable(K4tError):
    """`why`: the message without the secret's name and place."""

    def __init__(self, name: str, where: str, why: str, remedy: str = "") -> None:
        super().__init__(f"secret {name} ({where}): {why}", remedy)
        self.name = name
        self.why = why


class BadCopy(K4tError):
    """The message says why; what names the copy puts that before it."""


class NotCertified(K4tError):
    pass


class StepError(K4tError):
    pass


class EngineRefused(StepError):
    """`status` is the HTTP status of the Engine's answer."""

    def __init__(self, message: str, remedy: str = "", *, host: str = "", status: int = 500) -> None:
        super().__init__(message, remedy, host=host)
        self.status = status


class ImageNotFound(StepError):
    pass


class PullFailed(StepError):
    pass


class RegistryAway(PullFailed):
    pass


class RegistryRefused(PullFailed):
    pass


class PortTaken(StepError):
    pass


class AddressTaken(StepError):
    pass


class NameTaken(StepError):
    pass


class Unhealthy(StepError):
    pass


class HostFull(StepError):
    pass


class AnswerTooLong(StepError):
    pass


class RegistrarMismatch(StepError):
    pass


class Overtaken(StepError):
    pass


class NotPrepared(StepError):
    pass


class VendorRefused(StepError):
    pass


class Differs(StepError):
    pass


GRAVEST_FIRST = (130, 64, 75, 65, 77, 69, 4, 3, 1, 0)


def gravest(statuses: Iterable[int]) -> int:
    """The exit status that stands for all of them (design: 75, 65, 77, 69, 4, 3, 1); 0 for none."""
    return min(statuses, key=GRAVEST_FIRST.index, default=0)
