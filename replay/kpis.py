"""What the taps saw, joined with what the player did, becomes the kpis table: a row per flow.

Pure but for reading the taps' files. All delays are between kernel stamps, so neither the player's
wake-up delay nor the captured think time is in them: a response time is what the client's tap saw
less what the server's tap saw of the same exchange. Names follow IPPM (RFC 2681, 7679, 7680, 3393).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from replay.answers import first_response, goodput, loss_by_retransmission, middle_response
from replay.errors import InvalidCapture
from replay.meter import meter
from replay.observed import CLIENT, SERVER, UNKNOWN
from replay.packets import read_packets
from replay.played import PlayResult
from replay.schedule import ECHO, FORWARD, REVERSE, TCP, UDP
from replay.sightings import UNSEEN, Sightings, by_node, endpoint

Float = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

KPI_COLUMNS = (
    "run_id",
    "window",
    "role",
    "flow_id",
    "started_ns",
    "lateness_ns",
    "completed",
    "error",
    "connect_ns",
    "first_response_ns",
    "response_ns",
    "one_way_delay_forward_ns",
    "one_way_delay_reverse_ns",
    "pdv_ns",
    "loss_ratio",
    "retransmits",
    "delivered_octets",
    "goodput_bps",
    "duration_ns",
    "path",
    "as_expected",
)
_PDV_FROM_SAMPLES = 3
_PDV_QUANTILE = 0.95
_START_SLACK_NS = 1_000_000
_EXPECTED_ERRORS = {
    "accepted": ("none",),
    "reset": ("refused",),
    "denied": ("refused", "unreachable"),
    "unanswered": ("timeout",),
}


def kpis(result: PlayResult, taps: Mapping[str, Path], run_id: str, window: int, role: str) -> pd.DataFrame:
    """Every attempted flow's KPIs in one window, measured at its end points' taps.

    A delay that never ended (no connection, no answer) is +inf where one was expected; what is not
    defined for a flow is NaN. `path` is left to whoever knows the network.
    """
    sighted = {node: sightings(path) for node, path in taps.items()}
    return measured(result, sighted, run_id, window, role)


def sightings(path: Path) -> Sightings:
    """The metered packets of one tap; a window in which nothing passed has none."""
    try:
        packets, _ = read_packets([path])
    except InvalidCapture:
        return Sightings(_NO_FLOWS, _NO_SEGMENTS)
    metered = meter(packets)
    return Sightings(metered.flows, metered.segments)


def measured(result: PlayResult, taps: dict[str, Sightings], run_id: str, window: int, role: str) -> pd.DataFrame:
    """The same from taps that have been read already."""
    attempts = result.attempts.reset_index(drop=True)
    attempts["side"] = _client_sides(attempts, taps)
    accepted = result.accepted.reset_index(drop=True)
    accepted["side"] = _server_sides(accepted, taps)
    base_ns = int(result.started_ns)
    transfers = _stamped(result.transfers, attempts, accepted, taps, base_ns)
    exchanges = _exchanges(transfers)
    passages = _passages(transfers)

    table = pd.DataFrame({"flow_id": attempts["flow_id"].astype(str)})
    wanted = (attempts["outcome"] == "accepted") & (attempts["error"] != "not_started")
    table["completed"] = attempts["completed"].astype(bool)
    table["error"] = attempts["error"]
    table["as_expected"] = _as_expected(attempts)
    syn, answer = _handshake(attempts, taps)
    table["started_ns"] = _started(attempts, transfers, syn, base_ns)
    lateness = result.lateness.groupby("flow_id")["lateness_ns"].max()
    table["lateness_ns"] = table["flow_id"].map(lateness).fillna(0).astype("int64")
    table["connect_ns"] = _connect(attempts, syn, answer, wanted)
    table["first_response_ns"] = _or_never(table, first_response(exchanges), wanted & (attempts["exchanges"] > 0))
    table["response_ns"] = _or_never(table, middle_response(exchanges), wanted & (attempts["exchanges"] > 0))
    for name, direction in (("forward", FORWARD), ("reverse", REVERSE)):
        one_way = passages[passages["direction"] == direction].groupby("flow_id")["delay_ns"].median()
        table[f"one_way_delay_{name}_ns"] = table["flow_id"].map(one_way).astype("float64")
    table["pdv_ns"] = table["flow_id"].map(_pdv(passages)).astype("float64")
    table["loss_ratio"], table["retransmits"] = _loss(attempts, accepted, transfers, taps)
    table["delivered_octets"] = attempts["received_octets"] + attempts["server_octets"]
    table["goodput_bps"] = table["flow_id"].map(goodput(exchanges)).astype("float64")
    table["duration_ns"] = _duration(table, attempts, transfers, base_ns)
    table["run_id"], table["window"], table["role"], table["path"] = run_id, window, role, ""
    return table[list(KPI_COLUMNS)]


def _client_sides(attempts: pd.DataFrame, taps: Mapping[str, Sightings]) -> list[int]:
    names = ("node", "protocol", "source_address", "source_port", "target_address", "target_port", "started_ns")
    return [
        taps[node].find(protocol, endpoint(*source), endpoint(*target), at_ns - _START_SLACK_NS, accepted=False)
        if node in taps
        else UNSEEN
        for node, protocol, source, target, at_ns in _five_tuples(attempts, names)
    ]


def _server_sides(accepted: pd.DataFrame, taps: Mapping[str, Sightings]) -> list[int]:
    names = ("node", "protocol", "peer_address", "peer_port", "local_address", "local_port", "accepted_ns")
    return [
        taps[node].find(protocol, endpoint(*source), endpoint(*target), at_ns, accepted=True)
        if node in taps
        else UNSEEN
        for node, protocol, source, target, at_ns in _five_tuples(accepted, names)
    ]


def _five_tuples(
    table: pd.DataFrame, names: tuple[str, ...]
) -> Iterator[tuple[str, int, tuple[str, int], tuple[str, int], int]]:
    for node, protocol, source, source_port, target, target_port, at_ns in zip(
        *(table[name].tolist() for name in names), strict=True
    ):
        yield node, protocol, (source, source_port), (target, target_port), at_ns


def _stamped(
    transfers: pd.DataFrame,
    attempts: pd.DataFrame,
    accepted: pd.DataFrame,
    taps: dict[str, Sightings],
    base_ns: int,
) -> pd.DataFrame:
    """Transfers with the time at which their first and last octet passed their own side's tap.

    Times are floats since `base_ns`: nanoseconds since 1970 do not fit a float64.
    """
    table = transfers.copy()
    at_client = table["side"] == CLIENT
    of_flow = attempts.drop_duplicates("flow_id").set_index("flow_id")
    of_connection = accepted.drop_duplicates("connection").set_index("connection")
    node = table["flow_id"].map(of_flow["node"]).where(at_client, table["connection"].map(of_connection["node"]))
    forward_side = (
        table["flow_id"].map(of_flow["side"]).where(at_client, table["connection"].map(of_connection["side"]))
    )
    forward = forward_side.fillna(UNSEEN).to_numpy(dtype=np.int64)
    direction = table["direction"].to_numpy(dtype=np.int64)
    side = np.where(forward >= 0, forward ^ direction, UNSEEN)
    start, end = table["start"].to_numpy(dtype=np.int64), table["end"].to_numpy(dtype=np.int64)
    nodes = node.fillna("").tolist()
    table["protocol"] = table["flow_id"].map(of_flow["protocol"])
    first, last = by_node(taps, nodes, side, start, end)
    table["first_ns"], table["last_ns"] = _times(first, base_ns), _times(last, base_ns)
    table["octets"] = end - start
    return table


def _exchanges(transfers: pd.DataFrame) -> pd.DataFrame:
    """A row per request that expects an answer; +inf where none came."""
    client = transfers[transfers["side"] == CLIENT]
    server = transfers[transfers["side"] == SERVER]
    key = ["flow_id", "sequence"]
    asked = client[(client["direction"] == FORWARD) & (client["answer"] >= 0)]
    asked = asked[[*key, "answer", "last_ns"]].rename(columns={"last_ns": "asked_ns"})
    table = asked.merge(_view(client, REVERSE, "answer", "answered"), on=["flow_id", "answer"], how="left")
    table = table.merge(_view(server, FORWARD, "sequence", "arrived"), on=key, how="left")
    table = table.merge(_view(server, REVERSE, "answer", "left"), on=["flow_id", "answer"], how="left")
    # A request that no server saw and that was answered all the same was answered by the device.
    think = (table["left_first_ns"] - table["arrived_last_ns"]).where(table["arrived_octets"].notna(), 0.0)
    table["think_ns"] = think
    response = table["answered_first_ns"] - table["asked_ns"] - think
    table["response_ns"] = response.where(table["answered_octets"].notna(), np.inf)
    table["transfer_ns"] = table["answered_last_ns"] - table["asked_ns"] - think
    return table


def _view(transfers: pd.DataFrame, direction: int, sequence: str, name: str) -> pd.DataFrame:
    rows = transfers[transfers["direction"] == direction].drop_duplicates(["flow_id", "sequence"])
    rows = rows[["flow_id", "sequence", "octets", "first_ns", "last_ns"]]
    named = {old: f"{name}_{old}" for old in ("octets", "first_ns", "last_ns")}
    return rows.rename(columns={**named, "sequence": sequence})


def _passages(transfers: pd.DataFrame) -> pd.DataFrame:
    """A row per message: its one-way delay between the taps of both ends.

    NaN where the stream was rewritten on the way (an HTTP proxy), +inf where a datagram was lost.
    """
    key = ["flow_id", "sequence", "direction"]
    columns = [*key, "octets", "last_ns"]
    client = transfers[transfers["side"] == CLIENT].drop_duplicates(key)
    server = transfers[transfers["side"] == SERVER].drop_duplicates(key)
    table = client[[*columns, "protocol"]].merge(server[columns], on=key, how="outer", suffixes=("_client", "_server"))
    protocol = transfers.drop_duplicates("flow_id").set_index("flow_id")["protocol"]
    datagram = table["flow_id"].map(protocol) == UDP
    forward = table["direction"] == FORWARD
    delay = (table["last_ns_server"] - table["last_ns_client"]) * np.where(forward, 1, -1)
    same = datagram | (table["octets_client"] == table["octets_server"])
    lost = datagram & np.where(forward, table["octets_server"].isna(), table["octets_client"].isna())
    table["delay_ns"] = delay.where(same).mask(lost, np.inf)
    return table[["flow_id", "direction", "delay_ns"]].dropna()


def _pdv(passages: pd.DataFrame) -> pd.Series[float]:
    """95th percentile of the one-way delays less the smallest of their direction."""
    arrived = passages[np.isfinite(passages["delay_ns"])]
    smallest = arrived.groupby(["flow_id", "direction"])["delay_ns"].transform("min")
    excess = (arrived["delay_ns"] - smallest).groupby(arrived["flow_id"])
    spread: pd.Series[float] = excess.quantile(_PDV_QUANTILE)
    return spread.where(excess.size() >= _PDV_FROM_SAMPLES)


def _started(attempts: pd.DataFrame, transfers: pd.DataFrame, syn: Int64, base_ns: int) -> Int64:
    """When the flow's first packet left, by the tap; by the player where no tap saw it."""
    sent = transfers[transfers["side"] == CLIENT].groupby("flow_id")["first_ns"].min()
    said = attempts["flow_id"].map(sent)
    tried = attempts["started_ns"].to_numpy(dtype=np.int64)
    by_data = np.where(said.notna(), said.fillna(0).to_numpy(dtype=np.int64) + base_ns, tried)
    return np.where(syn > 0, syn, by_data)


def _connect(attempts: pd.DataFrame, syn: Int64, answer: Int64, wanted: pd.Series[bool]) -> Float:
    took = np.where((syn > 0) & (answer > 0), (answer - syn).astype(np.float64), np.nan)
    is_tcp = (attempts["protocol"] == TCP).to_numpy()
    failed = is_tcp & wanted.to_numpy() & ~attempts["connected"].to_numpy(dtype=bool)
    return np.where(failed, np.inf, np.where(is_tcp, took, np.nan))


def _loss(
    attempts: pd.DataFrame, accepted: pd.DataFrame, transfers: pd.DataFrame, taps: Mapping[str, Sightings]
) -> tuple[Float, Int64]:
    """Loss ratio and retransmitted packets, each direction counted at its sender.

    Retransmits are what the sending kernel says of its own socket (TCP_INFO); where it was not asked, because
    several flows share the socket, they are what passed the sender's tap a second time. The loss ratio of TCP is
    octets sent again, by the taps; of UDP it is datagrams that one side sent and the other never received; of ICMP
    echo, requests without an answer, whichever way that was lost.
    """
    counted = _retransmits(attempts, taps, FORWARD)
    own = _own_connections(attempts, accepted)
    there = pd.DataFrame(_retransmits(own, taps, REVERSE)).groupby(own["flow_id"]).sum()
    for column in range(counted.shape[1]):
        counted[:, column] += attempts["flow_id"].map(there[column]).fillna(0).to_numpy(dtype=np.int64)
    tcp = loss_by_retransmission(counted[:, 1], counted[:, 2])
    is_udp = (attempts["protocol"] == UDP).to_numpy()
    udp = attempts["flow_id"].map(_datagram_loss(transfers)).to_numpy(dtype=np.float64)
    is_echo = attempts["protocol"].isin(ECHO).to_numpy()
    echo = attempts["flow_id"].map(_echo_loss(transfers)).to_numpy(dtype=np.float64)
    ratio = np.where(is_udp, udp, np.where(is_echo, echo, tcp))
    return ratio, np.where(is_udp | is_echo, 0, counted[:, 0])


def _retransmits(rows: pd.DataFrame, taps: Mapping[str, Sightings], direction: int) -> Int64:
    counted = np.zeros((len(rows), 3), dtype=np.int64)
    for tap, at, side in _at_taps(rows, taps):
        counted[at] = tap.retransmits(_turned(side, direction))
    told = rows["retransmits"].to_numpy(dtype=np.int64)
    counted[:, 0] = np.where(told != UNKNOWN, told, counted[:, 0])
    return counted


def _own_connections(attempts: pd.DataFrame, accepted: pd.DataFrame) -> pd.DataFrame:
    """Server side connections that carry one flow alone: recognised, or from its own source."""
    keys = ["peer_address", "peer_port"]
    source = attempts.rename(columns={"source_address": "peer_address", "source_port": "peer_port"})
    by_source = accepted[accepted["flow_id"] == ""].drop(columns="flow_id")
    by_source = by_source.merge(source[[*keys, "protocol", "flow_id"]], on=[*keys, "protocol"])
    columns = ["flow_id", "node", "side", "protocol", "retransmits"]
    own = pd.concat([accepted[accepted["flow_id"] != ""][columns], by_source[columns]], ignore_index=True)
    return own[own["protocol"] == TCP].reset_index(drop=True)


def _datagram_loss(transfers: pd.DataFrame) -> pd.Series[float]:
    """Datagrams are told apart by flow and sequence, which the receiver knows by their payload: each counts once."""
    datagrams = transfers[transfers["protocol"] == UDP]
    datagrams = datagrams.drop_duplicates(["flow_id", "sequence", "direction", "side"])
    sent = (datagrams["side"] == CLIENT) == (datagrams["direction"] == FORWARD)
    left = datagrams[sent].groupby("flow_id").size()
    arrived = datagrams[~sent].groupby("flow_id").size().reindex(left.index, fill_value=0)
    ratio: pd.Series[float] = (left - arrived).clip(lower=0) / left
    return ratio


def _echo_loss(transfers: pd.DataFrame) -> pd.Series[float]:
    """The share of requests that nothing answered, of flows of which answers are expected."""
    echoes = transfers[transfers["protocol"].isin(ECHO)]
    asked = echoes[(echoes["direction"] == FORWARD) & (echoes["answer"] >= 0)].groupby("flow_id").size()
    answered = echoes[echoes["direction"] == REVERSE].groupby("flow_id").size().reindex(asked.index, fill_value=0)
    ratio: pd.Series[float] = (asked - answered) / asked
    return ratio


def _duration(table: pd.DataFrame, attempts: pd.DataFrame, transfers: pd.DataFrame, base_ns: int) -> Float:
    last = transfers[transfers["side"] == CLIENT].groupby("flow_id")["last_ns"].max()
    seen = table["flow_id"].map(last) - (table["started_ns"] - base_ns)
    tried = (attempts["ended_ns"] - attempts["started_ns"]).astype("float64")
    return seen.where(table["completed"] & seen.notna(), tried).to_numpy(dtype=np.float64)


def _or_never(table: pd.DataFrame, values: pd.Series[float], wanted: pd.Series[bool]) -> Float:
    known = table["flow_id"].map(values).astype("float64")
    absent = ~table["flow_id"].isin(values.index)
    return np.where(wanted & absent, np.inf, np.where(wanted, known, np.nan))


def _as_expected(attempts: pd.DataFrame) -> list[bool]:
    return [
        error in _EXPECTED_ERRORS.get(outcome, ("none",)) and not (outcome == "unanswered" and connected)
        for outcome, error, connected in zip(attempts["outcome"], attempts["error"], attempts["connected"], strict=True)
    ]


def _times(stamps: Int64, base_ns: int) -> Float:
    return np.where(stamps == UNSEEN, np.nan, (stamps - base_ns).astype(np.float64))


def _at_taps(rows: pd.DataFrame, taps: Mapping[str, Sightings]) -> Iterator[tuple[Sightings, Int64, Int64]]:
    """For each tap: itself, the positions of its rows, and their sides."""
    sides = rows["side"].to_numpy(dtype=np.int64)
    nodes = rows["node"].to_numpy(dtype=object)
    for node, tap in taps.items():
        at = np.flatnonzero(nodes == node)
        if len(at):
            yield tap, at, sides[at]


def _handshake(attempts: pd.DataFrame, taps: Mapping[str, Sightings]) -> tuple[Int64, Int64]:
    """When each attempt's first SYN left and the first answer to it arrived."""
    syn = np.full(len(attempts), UNSEEN, dtype=np.int64)
    answer = syn.copy()
    for tap, at, side in _at_taps(attempts, taps):
        syn[at] = tap.syn(side)
        answer[at] = tap.syn_ack(_turned(side, REVERSE))
    return syn, answer


def _turned(side: Int64, direction: int) -> Int64:
    return np.where(side >= 0, side ^ direction, UNSEEN)


_NO_FLOWS = pd.DataFrame(
    columns=[
        "flow_id",
        "protocol",
        "source_address",
        "source_port",
        "destination_address",
        "destination_port",
        "start_ns",
    ]
)
_NO_SEGMENTS = pd.DataFrame(
    columns=["flow_id", "direction", "time_ns", "stream_offset", "octets", "tcp_flags", "retransmission"]
)
