"""Silences of a whole capture, shortened: a recording with a hole of 22 days can be replayed in a minute.

Pure. A silence is a time in which no packet of any flow passed, so shortening it moves no two packets of an exchange
against each other. It knows no file and no player.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Silences:
    """Where a capture is silent for longer than `longest_ns`: when each begins, and by how much it is shortened."""

    longest_ns: int
    begin_ns: Int64
    cut_ns: Int64

    def __len__(self) -> int:
        return len(self.begin_ns)

    @property
    def total_cut_ns(self) -> int:
        """What all of them together are shortened by."""
        return int(self.cut_ns.sum())

    def moved(self, time_ns: Int64) -> Int64:
        """Moments on the shortened clock; one inside a silence is at most `longest_ns` after its begin."""
        if not len(self):
            return time_ns
        before = np.searchsorted(self.begin_ns, time_ns, "left")
        gone = np.concatenate(([0], np.cumsum(self.cut_ns)))
        last = np.maximum(before - 1, 0)
        inside = np.minimum(time_ns - self.begin_ns[last] - self.longest_ns, self.cut_ns[last])
        return time_ns - np.where(before > 0, gone[last] + np.maximum(inside, 0), 0)


def silences(segments: pd.DataFrame, longest_ns: int) -> Silences:
    """The silences in the meter's segments table that last longer than `longest_ns`."""
    time_ns = np.sort(segments["time_ns"].to_numpy(dtype=np.int64))
    quiet = np.diff(time_ns)
    long = np.flatnonzero(quiet > longest_ns)
    return Silences(longest_ns, time_ns[long], quiet[long] - longest_ns)


def shortened(flows: pd.DataFrame, messages: pd.DataFrame, quiet: Silences) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The flow and message tables on the shortened clock: starts, ends, offsets and think times."""
    if not len(quiet):
        return flows, messages
    start_ns = flows["start_ns"].to_numpy(dtype=np.int64)
    of_flow = pd.Series(start_ns, index=flows["flow_id"].astype(str))
    said = messages["flow_id"].astype(str).map(of_flow).to_numpy(dtype=np.int64) + messages["offset_ns"].to_numpy()
    since = said - messages["gap_ns"].to_numpy(dtype=np.int64)
    opened = messages["flow_id"].astype(str).map(of_flow).to_numpy(dtype=np.int64)
    return (
        flows.assign(
            start_ns=quiet.moved(start_ns),
            end_ns=quiet.moved(flows["end_ns"].to_numpy(dtype=np.int64)),
        ),
        messages.assign(
            offset_ns=quiet.moved(said) - quiet.moved(opened),
            gap_ns=quiet.moved(said) - quiet.moved(since),
        ),
    )
