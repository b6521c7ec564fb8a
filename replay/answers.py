"""What a flow's answered requests say of it: first and middle response time, goodput, loss by retransmission.

Pure, and the same for production's captures and for the shadow's taps. Knows no capture, no tap and no player.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Float = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

GOODPUT_FROM_OCTETS = 50_000
"""A smaller answer is over before its rate is the network's."""


def first_response(exchanges: pd.DataFrame) -> pd.Series[float]:
    """Each flow's first response time (ns), by flow_id; `exchanges` has flow_id, sequence and response_ns."""
    first: pd.Series[float] = exchanges.sort_values("sequence").groupby("flow_id")["response_ns"].first()
    return first


def middle_response(exchanges: pd.DataFrame) -> pd.Series[float]:
    """Each flow's median response time (ns), by flow_id."""
    middle: pd.Series[float] = exchanges.groupby("flow_id")["response_ns"].median()
    return middle


def goodput(exchanges: pd.DataFrame) -> pd.Series[float]:
    """The rate (bit/s) of each flow's largest answer of at least GOODPUT_FROM_OCTETS, by flow_id.

    Beside flow_id, `exchanges` has answered_octets and transfer_ns: from the request's last octet to the answer's last
    one, less what the server thought where that is known.
    """
    large = exchanges[exchanges["answered_octets"] >= GOODPUT_FROM_OCTETS]
    large = large.sort_values("answered_octets").drop_duplicates("flow_id", keep="last")
    rate = large["answered_octets"] * 8e9 / large["transfer_ns"].where(large["transfer_ns"] > 0)
    return rate.set_axis(large["flow_id"])


def loss_by_retransmission(octets_again: Int64, octets: Int64) -> Float:
    """The share of octets that were sent again; NaN where nothing was sent."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(octets_again / octets, np.float64)
