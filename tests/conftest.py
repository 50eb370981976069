"""What all tests run under."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and programs started by tests inherit that: then
    no Ctrl-C would reach them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with real servers come first, so that short ones fill the end, when workers run out of work."""
    slow = {item.path for item in items if item.get_closest_marker("unit") is None}
    items.sort(key=lambda item: item.path not in slow)
