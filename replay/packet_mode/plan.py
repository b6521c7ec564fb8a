"""Which node sends which packet when, and the octets it sends: the plan of a window in packet mode.

Pure: no socket, no clock, no namespace. Frames and flows go in, a plan comes out; with next hops it becomes a program,
which is what is sent, octet by octet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

import numpy as np
import pandas as pd

from replay.capture.records import SLACK_OCTETS, Records
from replay.columns import TCP, Int64
from replay.packet_mode.flows import NO_FLOW, Assigned, address_text
from replay.packet_mode.frames import NO_IP, Frames, frames
from replay.packet_mode.rewrite import (
    Checksums,
    DoesNotFit,
    Shape,
    divided,
    initial_hop_limit,
    whole,
    with_hop_limit,
    with_right_checksums,
)

NOBODY = -1
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_LINK_HEADER_OCTETS = 14
_ETHERNET = 1


@dataclass(frozen=True, slots=True)
class Hop:
    """A question for the way: from this node to that address, from that one; or, for frames without IP, an interface.

    `source` matters where it says which wire is meant: groups, broadcast, link-local addresses.
    """

    node: str
    destination: str
    source: str = ""
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """The answer: the interface by number, whose MAC to send from and to, and the MTU in octets."""

    interface: int
    source_mac: bytes
    next_hop_mac: bytes
    mtu_octets: int


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done to packets beside their link layer.

    `hop_limits`: back to the value a sender began with, except towards a group or on one wire. Malformed packets are
    always sent as they were captured.
    """

    checksums: Checksums = Checksums.RIGHT
    hop_limits: bool = True


@dataclass(frozen=True, slots=True)
class PacketPlan:
    """The frames to send, in order of time, each with flow, direction, moment and both nodes (NOBODY: none known).

    `unplayable` has flows no packet of which can be sent, with the reason; `unsent` packets by reason.
    """

    frames: Frames
    flow: Int64
    direction: Int64
    offset_ns: Int64
    sender: Int64
    receiver: Int64
    nodes: tuple[str, ...]
    flows: pd.DataFrame
    interface: str = ""
    treatment: Treatment = field(default_factory=Treatment)
    unplayable: tuple[tuple[str, str], ...] = ()
    unsent: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offset_ns)

    @property
    def duration_ns(self) -> int:
        """From the first moment of the plan to the last packet."""
        return int(self.offset_ns.max()) if len(self) else 0

    def hops(self) -> list[Hop]:
        """Every way that must be known before a program can be made."""
        return sorted({self.hop(row) for row in range(len(self))}, key=str)

    def hop(self, row: int) -> Hop:
        """The way that one packet needs."""
        node = self.nodes[self.sender[row]]
        if self.frames.protocol[row] == NO_IP:
            return Hop(node, "", interface=self.interface)
        destination = address_text(self.frames.destination[row].tobytes())
        source = address_text(self.frames.source[row].tobytes()) if on_one_wire(destination) else ""
        return Hop(node, destination, source)


@dataclass(frozen=True, slots=True)
class Program:
    """What is sent: Ethernet frames one after the other in `octets`, each with its moment, interface and origin.

    `row` is the packet of the plan that a frame carries, alone or with others. `left_out`: (row, reason) of packets
    that cannot be sent on these ways.
    """

    octets: bytes
    at: Int64
    length: Int64
    due_ns: Int64
    port: Int64
    row: Int64
    ports: tuple[tuple[str, int], ...]
    macs: Mapping[str, frozenset[bytes]]
    left_out: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.at)

    def frames(self, snaplen: int) -> Frames:
        """The frames as a tap that keeps `snaplen` octets sees them leave."""
        data = np.frombuffer(self.octets + bytes(SLACK_OCTETS), np.uint8)
        link_type = np.full(len(self), _ETHERNET, np.int64)
        kept = np.minimum(self.length, snaplen)
        return frames(Records(data, self.at, kept, self.length, self.due_ns, link_type))[0]


def on_one_wire(destination: str) -> bool:
    """Whether an address means something on one wire only."""
    address = ip_address(destination)
    return address.is_multicast or address.is_link_local or destination == "255.255.255.255"


def planned(
    frames_: Frames,
    assigned: Assigned,
    place: Callable[[str], str | None],
    speed: float = 1.0,
    epoch_ns: int | None = None,
    link_layer: tuple[str, str] | None = None,
    treatment: Treatment | None = None,
) -> PacketPlan:
    """The plan that sends the frames that belong to a flow, `speed` times as fast as captured, from `epoch_ns` on.

    `place` says which end point owns an address. `link_layer` is the node and interface that send frames without IP.
    Raises ValueError when the speed is not positive.
    """
    if speed <= 0:
        raise ValueError(f"speed must be positive, found {speed}")
    numbers: dict[str, int] = {}

    def number(node: str | None) -> int:
        return NOBODY if node is None else numbers.setdefault(node, len(numbers))

    owners: dict[bytes, int] = {}
    chosen = np.flatnonzero(assigned.flow != NO_FLOW)
    sender, receiver = np.full(len(chosen), NOBODY, np.int64), np.full(len(chosen), NOBODY, np.int64)
    reasons: dict[int, str] = {}
    for at, row in enumerate(chosen.tolist()):
        if frames_.protocol[row] == NO_IP:
            sender[at] = number(link_layer[0]) if link_layer else NOBODY
            if link_layer is None:
                reasons[at] = "a frame without IP, and no interface was named to send it"
            continue
        for ends, column in ((sender, frames_.source), (receiver, frames_.destination)):
            address = column[row].tobytes()
            if address not in owners:
                owners[address] = number(place(address_text(address)))
            ends[at] = owners[address]
        if sender[at] == NOBODY:
            reasons[at] = f"no end point owns the source address {address_text(frames_.source[row].tobytes())}"
        elif sender[at] == receiver[at]:
            reasons[at] = f"both its ends are on {list(numbers)[sender[at]]}"
    sendable = np.array([at for at in range(len(chosen)) if at not in reasons], np.int64)
    rows = chosen[sendable]
    epoch = epoch_ns if epoch_ns is not None else int(frames_.time_ns[rows].min()) if len(rows) else 0
    return PacketPlan(
        frames=frames_.taken(rows),
        flow=assigned.flow[rows],
        direction=assigned.direction[rows],
        offset_ns=np.maximum(((frames_.time_ns[rows] - epoch) / speed).astype(np.int64), 0),
        sender=sender[sendable],
        receiver=receiver[sendable],
        nodes=tuple(numbers),
        flows=assigned.flows,
        interface=link_layer[1] if link_layer else "",
        treatment=treatment or Treatment(),
        unplayable=_unplayable(assigned, chosen, rows, reasons),
        unsent=_counted(reasons),
    )


def program(plan: PacketPlan, ways: Mapping[Hop, Way | str]) -> Program:
    """The frames of a plan over these ways; a way that is a text is the reason why there is none."""
    octets, at, length, due, port, rows = bytearray(), [], [], [], [], []
    ports: dict[tuple[str, int], int] = {}
    macs: dict[str, set[bytes]] = {}
    left_out: list[tuple[int, str]] = []
    for row in range(len(plan)):
        hop = plan.hop(row)
        way = ways.get(hop, "its way was not asked for")
        if isinstance(way, str):
            left_out.append((row, way))
            continue
        try:
            sent = _sent(plan, row, way)
        except DoesNotFit as reason:
            left_out.append((row, str(reason)))
            continue
        macs.setdefault(hop.node, set()).add(way.source_mac)
        where = ports.setdefault((hop.node, way.interface), len(ports))
        for frame in sent:
            at.append(len(octets))
            length.append(len(frame))
            octets += frame
            due.append(int(plan.offset_ns[row]))
            port.append(where)
            rows.append(row)
    return Program(
        octets=bytes(octets),
        at=np.array(at, np.int64),
        length=np.array(length, np.int64),
        due_ns=np.array(due, np.int64),
        port=np.array(port, np.int64),
        row=np.array(rows, np.int64),
        ports=tuple(ports),
        macs={node: frozenset(own) for node, own in macs.items()},
        left_out=tuple(left_out),
    )


def _sent(plan: PacketPlan, row: int, way: Way) -> list[bytes]:
    """The Ethernet frames that carry one packet."""
    table = plan.frames
    version, packet = int(table.version[row]), table.packet(row)
    if table.protocol[row] == NO_IP:
        frame = table.data[table.link_at[row] : table.end[row]].tobytes()
        if len(frame) - _LINK_HEADER_OCTETS > way.mtu_octets:
            raise DoesNotFit(f"{len(frame) - _LINK_HEADER_OCTETS} octets over an MTU of {way.mtu_octets}")
        return [frame]
    link = way.next_hop_mac + way.source_mac + _ETHERTYPE[version]
    if table.malformed[row]:
        if len(packet) > way.mtu_octets:
            raise DoesNotFit(f"{len(packet)} malformed octets over an MTU of {way.mtu_octets}")
        return [link + packet]
    header_octets = int(table.transport_at[row] - table.at[row])
    fragment = bool(table.fragment_octets[row]) or bool(table.more[row])
    shape = Shape(version, header_octets, int(table.protocol[row]), fragment)
    octets = int(table.octets[row])
    packet = _with_length(whole(packet, octets), version, octets)
    if plan.treatment.hop_limits and not on_one_wire(address_text(table.destination[row].tobytes())):
        packet = with_hop_limit(packet, version, initial_hop_limit(int(table.hop_limit[row])))
    right, is_tcp = plan.treatment.checksums is Checksums.RIGHT, shape.protocol == TCP
    if right and not is_tcp:
        packet = with_right_checksums(packet, shape)
    pieces = divided(packet, shape, way.mtu_octets)
    if is_tcp and (right or len(pieces) > 1):
        pieces = [with_right_checksums(piece, shape) for piece in pieces]
    return [link + piece for piece in pieces]


def _with_length(packet: bytes, version: int, octets: int) -> bytes:
    """The packet with its length in its header, where a super-frame has 0: a card's to fill in."""
    place, value = (2, octets) if version == 4 else (4, octets - 40)
    if packet[place : place + 2] == b"\0\0" and 0 < value <= 0xFFFF:
        return packet[:place] + value.to_bytes(2, "big") + packet[place + 2 :]
    return packet


def _unplayable(
    assigned: Assigned, chosen: Int64, rows: Int64, reasons: Mapping[int, str]
) -> tuple[tuple[str, str], ...]:
    playable = set(assigned.flow[rows].tolist())
    told: dict[int, str] = {}
    for at, reason in reasons.items():
        told.setdefault(int(assigned.flow[chosen[at]]), reason)
    names = assigned.flows["flow_id"].tolist()
    return tuple((names[flow], reason) for flow, reason in sorted(told.items()) if flow not in playable)


def _counted(reasons: Mapping[int, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons.values():
        counts[reason] = counts.get(reason, 0) + 1
    return counts
