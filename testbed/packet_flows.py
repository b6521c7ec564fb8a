"""Which flows of a what-if are sent as packets: none, all, or those that no socket can re-enact.

Pure but for reading captures.  It knows no namespace; what is planned here is played in `testbed.beside_packets`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd

from replay.columns import TCP, UDP, Bool
from replay.packet_mode.flows import MALFORMED, NO_FLOW, Assigned, of_flows, together, without_session
from replay.packet_mode.frames import Frames, read_frames
from replay.packet_mode.plan import PacketPlan, planned
from testbed.packet_mode import Sender
from testbed.placement import END_POINTS
from topologies.model import Topology

NO_SESSION = "has no session to re-enact"
"""How the schedule ends the reason why a flow cannot be played over sockets."""


class Mode(StrEnum):
    """How flows are replayed: over sockets, as packets, or over sockets where that is possible."""

    SESSION = "session"
    PACKET = "packet"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Manner:
    """How flows are replayed, who sends what goes as packets, and the loads beside them as they were written.

    Flows over sockets are replayed `load` times each; `seed` chooses those that a fraction copies.
    """

    mode: Mode = Mode.SESSION
    sender: Sender = Sender.OWN
    background: tuple[str, ...] = ()
    load: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Mixed:
    """The flows of captures for a mode: the meter's, and beside them those that only packets can carry.

    `left_out` has malformed flows from or to addresses that no node has: garbage is no reason to refuse a capture.
    """

    mode: Mode
    flows: pd.DataFrame
    frames: Frames | None = None
    odd: Assigned | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def over_sockets(self, placed: pd.DataFrame) -> pd.DataFrame:
        """Those of the placed flows that the schedule is asked to play."""
        return placed.iloc[:0] if self.mode is Mode.PACKET else placed

    def as_packets(self, placed: pd.DataFrame, unplayable: Mapping[str, str]) -> pd.DataFrame:
        """Those of the placed flows that are sent as packets; `unplayable` is the schedule's word."""
        if self.mode is Mode.SESSION:
            return placed.iloc[:0]
        if self.mode is Mode.PACKET:
            return placed
        wanted = [flow_id for flow_id, reason in unplayable.items() if reason.endswith(NO_SESSION)]
        return placed[placed["flow_id"].isin(wanted)]

    def plan(self, chosen: pd.DataFrame, placed: pd.DataFrame, topology: Topology, speed: float) -> PacketPlan | None:
        """The packets of the chosen flows, on the schedule's clock of all placed ones; None when there are none."""
        if self.frames is None or self.odd is None or chosen.empty:
            return None
        chosen = chosen.reset_index(drop=True)
        known = chosen[~chosen["flow_id"].isin(self.odd.flows["flow_id"])].reset_index(drop=True)
        assigned = _renumbered(together(of_flows(self.frames, known), self.odd), chosen)

        def place(address: str) -> str | None:
            owner = topology.owner(address)
            return owner.name if owner and owner.kind in END_POINTS else None

        return planned(self.frames, assigned, place, speed, int(placed["start_ns"].min()))


def mixed(files: Collection[Path], flows: pd.DataFrame, mode: Mode, topology: Topology) -> Mixed:
    """The flows that a mode replays; raises InvalidCapture as the reader does."""
    if mode is Mode.SESSION:
        return Mixed(mode, flows)
    frames, _ = read_frames(list(files), _without_socket if mode is Mode.AUTO else None)
    odd = without_session(frames)
    lost = {
        flow_id: f"malformed packets from {source} to {target}, not both of which a node owns"
        for flow_id, application, source, target in odd.flows[
            ["flow_id", "application", "source_address", "destination_address"]
        ].itertuples(index=False)
        if application == MALFORMED and (topology.owner(source) is None or topology.owner(target) is None)
    }
    kept = odd.flows[~odd.flows["flow_id"].isin(list(lost))]
    flows = _well_formed(files, flows, odd.flows)
    odd = _renumbered(odd, kept.reset_index(drop=True))
    parts = [table for table in (flows, odd.flows) if len(table)]
    return Mixed(mode, pd.concat(parts, ignore_index=True) if parts else flows, frames, odd, lost)


def _without_socket(frames: Frames) -> Bool:
    """All but what the session player plays, which is most of a capture and need not stay in memory."""
    return ~np.isin(frames.protocol, (TCP, UDP)) | frames.malformed


def _well_formed(files: Collection[Path], flows: pd.DataFrame, odd: pd.DataFrame) -> pd.DataFrame:
    """The meter's flows but those whose every packet is malformed, which would be there twice."""
    bad = odd[odd["application"] == MALFORMED]
    ends = {frozenset(one) for one in zip(bad["source_address"], bad["destination_address"], strict=True)}
    pairs = zip(flows["source_address"], flows["destination_address"], strict=True)
    suspects = flows[[frozenset(pair) in ends for pair in pairs]].reset_index(drop=True)
    if suspects.empty:
        return flows
    ports = suspects["source_port"].to_numpy()
    frames, _ = read_frames(
        list(files), lambda one: np.isin(one.source_port, ports) | np.isin(one.destination_port, ports)
    )
    number = of_flows(frames, suspects).flow
    good = np.bincount(number[number != NO_FLOW], minlength=len(suspects)) > 0
    return flows[~flows["flow_id"].isin(suspects["flow_id"][~good])].reset_index(drop=True)


def _renumbered(assigned: Assigned, flows: pd.DataFrame) -> Assigned:
    """The same frames over another flow table, by flow_id; frames of flows that it lacks belong to none."""
    row_of = {flow_id: row for row, flow_id in enumerate(flows["flow_id"].tolist())}
    rows = np.array([row_of.get(flow_id, NO_FLOW) for flow_id in assigned.flows["flow_id"].tolist()] + [NO_FLOW])
    return replace(assigned, flows=flows, flow=rows[assigned.flow])
