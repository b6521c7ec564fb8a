"""Device readings before and after a window, as rows of the `counters` table.

Pure: a counter becomes what it grew by inside the window, a gauge or state what it was at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from testbed.devices.base import Reading

COLUMNS = ["window", "role", "node", "kind", "object", "metric", "value", "state"]
Readings = Mapping[str, Sequence[Reading]]


def counter_rows(window: int, role: str, before: Readings, after: Readings) -> pd.DataFrame:
    """The counters of one window; a counter that restarted inside it counts from zero."""
    rows = []
    for node, readings in after.items():
        start = {(r.kind, r.object, r.metric): r.value for r in before.get(node, ())}
        for reading in readings:
            value = reading.value
            if reading.cumulative:
                earlier = start.get((reading.kind, reading.object, reading.metric), 0.0)
                value = value - earlier if value >= earlier else value
            rows.append((window, role, node, reading.kind, reading.object, reading.metric, float(value), reading.state))
    return pd.DataFrame(rows, columns=COLUMNS)
