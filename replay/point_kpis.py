"""KPIs of flows as one capture point saw them, in the columns of the shadow's kpis table.

Knows the meter's tables only. What one point cannot tell is null: one-way delays, PDV, the loss of datagrams, lateness.
A response time is from the request's last octet to the answer's first, both at the point, so the server's own time is
in it, and of the way only what lies behind the point; retransmissions count where the lost packet had passed the point.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from replay.answers import goodput, loss_by_retransmission, middle_response
from replay.columns import FIN, RST, TCP
from replay.kpis import KPI_COLUMNS
from replay.meter import Metered
from replay.ofcm.timings import timed
from replay.sightings import UNSEEN, Sightings

Float = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

ROLE = "production"
_ERRORS = {"accepted": "none", "reset": "refused", "denied": "unreachable", "unanswered": "timeout"}


def point_kpis(metered: Metered) -> pd.DataFrame:
    """A row a flow with KPI_COLUMNS; `window` is 0, `role` production, `as_expected` true, for it is what was seen.

    `error` is refused (a RST met the SYN), unreachable (ICMP said so), timeout (no answer), reset (the responder broke
    off with a request unanswered), truncated (it closed without having said anything; what a client says last after
    answers is taken for a farewell, as TLS has one), else none. Delays are ns; +inf is a first answer that never came.
    """
    flows = metered.flows
    sighted = Sightings(flows, metered.segments)
    sides = 2 * np.arange(len(flows), dtype=np.int64)
    is_tcp = (flows["protocol"] == TCP).to_numpy(np.bool_)
    owed, silent = _owed(metered)
    exchanges = _exchanges(metered, sighted)
    times = timed(metered)

    table = pd.DataFrame({"flow_id": flows["flow_id"]})
    table["run_id"], table["window"], table["role"], table["path"] = "", 0, ROLE, ""
    table["started_ns"] = flows["start_ns"]
    table["lateness_ns"] = np.nan
    table["error"] = flows["outcome"].map(_ERRORS).mask(owed & flows["close"].eq("rst_reverse"), "reset")
    table["error"] = table["error"].mask(owed & silent & flows["close"].eq("fin_reverse"), "truncated")
    table["completed"] = table["error"] == "none"
    table["connect_ns"] = times["connect_ns"]
    middle = table["flow_id"].map(middle_response(exchanges)).astype("float64")
    for name, known in (("first_response_ns", times["first_response_ns"]), ("response_ns", middle)):
        table[name] = known.mask(known.isna() & owed & silent, np.inf)
    for name in ("one_way_delay_forward_ns", "one_way_delay_reverse_ns", "pdv_ns"):
        table[name] = np.nan
    counted = sighted.retransmits(sides) + sighted.retransmits(sides ^ 1)
    table["loss_ratio"] = np.where(is_tcp, loss_by_retransmission(counted[:, 1], counted[:, 2]), np.nan)
    table["retransmits"] = np.where(is_tcp, counted[:, 0], 0)
    table["delivered_octets"] = _delivered(metered)
    table["goodput_bps"] = table["flow_id"].map(goodput(exchanges)).astype("float64")
    table["duration_ns"] = _durations(metered, table["completed"].to_numpy(np.bool_))
    table["as_expected"] = True
    return table[list(KPI_COLUMNS)]


def _exchanges(metered: Metered, sighted: Sightings) -> pd.DataFrame:
    """A row per request that was answered: every forward message that a reverse one follows."""
    said = metered.messages
    flow, direction = said["flow_id"].cat.codes.to_numpy(np.int64), said["direction"].to_numpy(np.int64)
    octets = said["octets"].to_numpy(np.int64)
    answers = np.zeros(len(said), np.bool_)
    answers[1:] = (flow[1:] == flow[:-1]) & (direction[1:] == 1) & (direction[:-1] == 0)
    answer = np.flatnonzero(answers)
    end = said.groupby(["flow_id", "direction"], observed=True)["octets"].cumsum().to_numpy(np.int64)
    row = _rows_of(metered)[flow[answer]] if len(said) else np.zeros(0, np.int64)
    asked_ns = sighted.all_seen(2 * row, (end - octets)[answer - 1], end[answer - 1])
    answered_ns = sighted.all_seen(2 * row + 1, (end - octets)[answer], end[answer])
    seen = (asked_ns != UNSEEN) & (answered_ns != UNSEEN) & _is_tcp(metered)[row]
    return pd.DataFrame(
        {
            "flow_id": said["flow_id"].astype("str").to_numpy()[answer],
            "sequence": said["sequence"].to_numpy()[answer - 1],
            "response_ns": said["gap_ns"].to_numpy(np.float64)[answer],
            "answered_octets": octets[answer],
            "transfer_ns": np.where(seen, (answered_ns - asked_ns).astype(np.float64), np.nan),
        }
    )


def _owed(metered: Metered) -> tuple[Bool, Bool]:
    """Accepted TCP flows whose responder closed first, a request being the last that was said; who never answered."""
    flows, segments = metered.flows, metered.segments
    flow = _rows_of(metered)[segments["flow_id"].cat.codes.to_numpy(np.int64)] if len(segments) else np.zeros(0, int)
    time_ns = segments["time_ns"].to_numpy(np.int64)
    reverse = segments["direction"].to_numpy(np.int64) == 1
    closing = np.flatnonzero(reverse & (segments["tcp_flags"].to_numpy(np.int64) & (FIN | RST) != 0))
    closed_ns = np.full(len(flows), np.iinfo(np.int64).max, np.int64)
    np.minimum.at(closed_ns, flow[closing], time_ns[closing])
    new = (segments["octets"].to_numpy(np.int64) > 0) & ~segments["retransmission"].to_numpy(np.bool_)
    before = np.flatnonzero(new & (time_ns <= closed_ns[flow]))
    last = np.full(len(flows), -1, np.int64)
    last[flow[before]] = reverse[before]
    owing: Bool = (last == 0) & (flows["outcome"] == "accepted").to_numpy(np.bool_) & _is_tcp(metered)
    silent = np.ones(len(flows), np.bool_)
    silent[flow[new & reverse]] = False
    return owing & flows["close"].isin(("fin_reverse", "rst_reverse")).to_numpy(np.bool_), silent


def _delivered(metered: Metered) -> Int64:
    said = metered.messages
    total = np.zeros(len(metered.flows), np.int64)
    if len(said):
        row = _rows_of(metered)[said["flow_id"].cat.codes.to_numpy(np.int64)]
        np.add.at(total, row, said["octets"].to_numpy(np.int64))
    return total


def _durations(metered: Metered, completed: Bool) -> Float:
    """From the first packet to the last payload of a completed flow, to the last packet of another."""
    flows, segments = metered.flows, metered.segments
    last = flows["end_ns"].to_numpy(np.int64).copy()
    spoken = segments[segments["octets"] > 0]
    if len(spoken):
        row = _rows_of(metered)[spoken["flow_id"].cat.codes.to_numpy(np.int64)]
        heard = np.zeros(len(flows), np.int64)
        np.maximum.at(heard, row, spoken["time_ns"].to_numpy(np.int64))
        last = np.where(completed & (heard > 0), heard, last)
    took: Int64 = last - flows["start_ns"].to_numpy(np.int64)
    return took.astype(np.float64)


def _rows_of(metered: Metered) -> Int64:
    """The flow table's row of every category of flow_id in the other tables."""
    names = metered.segments["flow_id"].cat.categories
    return np.asarray(pd.Index(metered.flows["flow_id"]).get_indexer(names), np.int64)


def _is_tcp(metered: Metered) -> Bool:
    return (metered.flows["protocol"] == TCP).to_numpy(np.bool_)
