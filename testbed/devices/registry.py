"""Which device kinds exist: entry points of the group `testbed.devices`, ours and third parties' alike.

It knows no kind by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from testbed.devices.base import Device
from testbed.errors import Unsupported

GROUP = "testbed.devices"


def known_devices() -> Mapping[str, Device]:
    """Every device kind by its name, sorted; raises Unsupported when the project is not installed."""
    found = {point.name: point.load() for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}
    if not found:
        raise Unsupported("no device kinds are registered", "install the project (./lab setup)")
    return found
