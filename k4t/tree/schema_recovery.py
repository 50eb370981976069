"""The table: recovery.xml."""

from __future__ import annotations

from k4t.tree import values as v
from k4t.tree.table import Element, attribute, element

RECOVERY: Element = element(
    "recovery",
    "Who can open copies of the tree, and whose signature makes one genuine. Written by `k4t init`; belongs into git. "
    "It is no part of what is applied.",
    attribute("key", v.PUBLIC_KEY, "The cluster's public key; it also stands in the recovery kit.", required=True),
    element(
        "recipient",
        "Copies are encrypted so that whoever holds this key's identity can open them.",
        attribute("name", v.TEXT, "Who that is."),
        text=v.RECIPIENT,
        text_required=True,
        required=True,
        many=True,
    ),
    element(
        "sealed-key",
        "The cluster's private key, encrypted to the recipients: nobody else can open it.",
        text=v.SEALED,
        text_required=True,
        required=True,
    ),
)
