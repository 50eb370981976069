"""Why the registrar says no. `kind` travels in the answer; the client makes k4t's own error of it."""

from __future__ import annotations


class Refused(Exception):
    """The base of all: something about the request or this host; nothing was changed."""

    kind = "refused"


class BadRequest(Refused):
    """The request itself is wrong: a bug, or somebody else than k4t at the door."""

    kind = "bad-request"


class Overtaken(Refused):
    """A newer run has fenced this one off."""

    kind = "overtaken"


class NotPrepared(Refused):
    """Nothing of that transaction is staged or live here."""

    kind = "not-prepared"


class Clash(Refused):
    """Another cluster already publishes the same; the message names the owner."""

    kind = "clash"


class VendorRefused(Refused):
    """The vendor's own checker (or this host's driver) can't take it: its words."""

    kind = "vendor-refused"


class VendorSilent(Refused):
    """The vendor doesn't answer."""

    kind = "vendor-silent"


class Newer(Refused):
    """State on this host was written by a newer registrar."""

    kind = "newer"


class Damaged(Refused):
    """State on this host can't be read."""

    kind = "damaged"


class Full(Refused):
    """No space left."""

    kind = "full"


class Denied(Refused):
    """No permission to write here."""

    kind = "denied"


class Busy(Refused):
    """The host's lock was not free in time."""

    kind = "busy"


class NotInstalled(Refused):
    """This driver was never set up on this host."""

    kind = "not-installed"
