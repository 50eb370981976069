"""What nobody may do by accident. The words are those of `--allow KIND[:NAME]`, and no release takes one away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """`name`: what may follow the colon; "" for nothing. Without a name it permits all of the kind."""

    name: str
    meaning: str


KINDS: Mapping[str, Kind] = {
    "abandon-data": Kind("APP/REPLICA", "a replica starts where its data isn't"),
    "empty-app": Kind("APP", "an app that has replicas running is left with none"),
    "join": Kind("APP", "an app that another cluster publishes is published by this one too"),
    "power-off": Kind("NODE", "a node that is in use, or can't be asked, is switched off"),
    "remove-app": Kind("APP", "an app that is gone from the tree loses its containers"),
    "rewind": Kind("", "the tree is older than what the cluster runs, or another machine took over from this one"),
    "uncleaned": Kind("NODE", "a node that can't be reached is removed, and its containers stay there"),
    "unfenced": Kind("NODE", "a node is given up though nothing says that it is off"),
    "withdraw": Kind("GROUP", "a group loses more of its endpoints at once than `<safety>` has"),
}
"""By the word before the colon."""
