"""Connect and first response times of metered flows, as the capture point saw them. Knows the meter's tables only."""

from __future__ import annotations

import numpy as np
import pandas as pd

from replay.columns import ACK, SYN, TCP
from replay.meter import Metered


def timed(metered: Metered) -> pd.DataFrame:
    """The flow table with connect_ns and first_response_ns (floats, NaN where the capture does not tell).

    Connect: the first SYN to the first SYN with ACK that answers. First response: the last octet of the first request
    to the first of its answer, so the server's own time is in it, and of the way only what lies behind the capture
    point.
    """
    flows = metered.flows
    return flows.assign(
        connect_ns=flows["flow_id"].map(_connects(metered)).astype("float64"),
        first_response_ns=flows["flow_id"].map(_first_responses(metered.messages)).astype("float64"),
    )


def _connects(metered: Metered) -> pd.Series[float]:
    segments = metered.segments
    flags = segments["tcp_flags"] & (SYN | ACK)
    asked = segments[(segments["direction"] == 0) & (flags == SYN)].drop_duplicates("flow_id")
    answered = segments[(segments["direction"] == 1) & (flags == SYN | ACK)].drop_duplicates("flow_id")
    both = asked[["flow_id", "time_ns"]].merge(answered[["flow_id", "time_ns"]], on="flow_id", suffixes=("", "_answer"))
    tcp = set(metered.flows.loc[metered.flows["protocol"] == TCP, "flow_id"])
    both = both[both["flow_id"].isin(tcp)]
    took = (both["time_ns_answer"] - both["time_ns"]).astype("float64")
    return took.where(took >= 0).set_axis(both["flow_id"].astype("str"))


def _first_responses(messages: pd.DataFrame) -> pd.Series[float]:
    flow = messages["flow_id"].cat.codes.to_numpy()
    direction = messages["direction"].to_numpy()
    answers = np.zeros(len(messages), np.bool_)
    answers[1:] = (flow[1:] == flow[:-1]) & (direction[1:] == 1) & (direction[:-1] == 0)
    first = messages[answers].drop_duplicates("flow_id")
    return first["gap_ns"].astype("float64").set_axis(first["flow_id"].astype("str"))
