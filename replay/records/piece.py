"""One flow record as its exporter wrote it, in words every format shares. Knows no format and no file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Initiator(Enum):
    """Who opened the flow, as far as the exporter says (RFC 5103 biflowDirection)."""

    UNKNOWN = "unknown"
    SOURCE = "source"
    DESTINATION = "destination"

    def turned(self) -> Initiator:
        """The same end, seen from the other side."""
        return {Initiator.SOURCE: Initiator.DESTINATION, Initiator.DESTINATION: Initiator.SOURCE}.get(self, self)


@dataclass(frozen=True, slots=True)
class Details:
    """What a format says beyond the flow table; empty where it says nothing.

    `observer` is who saw the flow (an interface, an exporter, a point in a node). The interface's addresses are those
    of AWS's srcaddr and dstaddr where they differ from the packet's own, so that a translation on the way is kept.
    """

    observer: str = ""
    identifier: str = ""
    state: str = ""
    history: str = ""
    flow_direction: str = ""
    interface_source_address: str = ""
    interface_destination_address: str = ""

    def turned(self) -> Details:
        """The same with the two ends exchanged."""
        source, destination = self.interface_destination_address, self.interface_source_address
        if source == destination:
            return self
        return replace(self, interface_source_address=source, interface_destination_address=destination)


NO_DETAILS = Details()


@dataclass(frozen=True, slots=True)
class Piece:
    """A flow, half of one or a stretch of one; forward goes from `source_address` to `destination_address`.

    Times are ns since 1970, octets as the exporter counts them, flags the OR of what was seen (0: not told). `refused`
    says that the network dropped what this record counts. `outcome`, `close`, `end_reason` are the exporter's own word
    in the flow table's vocabulary, empty where it gives none.
    """

    start_ns: int
    end_ns: int
    protocol: int
    source_address: str
    source_port: int
    destination_address: str
    destination_port: int
    forward_packets: int
    forward_octets: int
    reverse_packets: int = 0
    reverse_octets: int = 0
    forward_flags: int = 0
    reverse_flags: int = 0
    initiator: Initiator = Initiator.UNKNOWN
    refused: bool = False
    outcome: str = ""
    close: str = ""
    end_reason: str = ""
    application: str = ""
    details: Details = NO_DETAILS

    def turned(self) -> Piece:
        """The same record with forward from the other end."""
        return replace(
            self,
            source_address=self.destination_address,
            source_port=self.destination_port,
            destination_address=self.source_address,
            destination_port=self.source_port,
            forward_packets=self.reverse_packets,
            forward_octets=self.reverse_octets,
            reverse_packets=self.forward_packets,
            reverse_octets=self.forward_octets,
            forward_flags=self.reverse_flags,
            reverse_flags=self.forward_flags,
            initiator=self.initiator.turned(),
            details=self.details.turned(),
        )
