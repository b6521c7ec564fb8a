"""The columns every decoded packet has: knows no file format, no header layout and no flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt32 = npt.NDArray[np.uint32]
UInt16 = npt.NDArray[np.uint16]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
ICMP_ECHO_REQUEST, ICMP_ECHO_REPLY = 8, 0
ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY = 128, 129


@dataclass(frozen=True, slots=True)
class Quotes:
    """The packets that ICMP errors quote, one row per error; `packet` is the error's row in `Packets`."""

    packet: Int64
    protocol: UInt8
    version: UInt8
    source_address: UInt8
    destination_address: UInt8
    source_port: UInt16
    destination_port: UInt16

    def __len__(self) -> int:
        return len(self.packet)


@dataclass(frozen=True, slots=True)
class Packets:
    """Decoded packets as columns of equal length, sorted by time (ns since 1970).

    Addresses are 16 octets, IPv4 as ::ffff:a.b.c.d with `version` 4. ICMP echo has its identifier in both ports
    and its number in `sequence`; other ICMP has ports 0. `ip_octets` and `payload_octets` follow the IP length,
    not what a snaplen left of it; `captured_octets` of the payload lie in `data` from `payload_offset`.
    `datagram` is the row of the first fragment (the row itself when unfragmented) and `fragment_octets` the
    payload's distance from that datagram's payload.
    """

    time_ns: Int64
    protocol: UInt8
    version: UInt8
    source_address: UInt8
    destination_address: UInt8
    source_port: UInt16
    destination_port: UInt16
    sequence: UInt32
    acknowledgement: UInt32
    tcp_flags: UInt8
    hop_limit: UInt8
    payload_octets: Int32
    captured_octets: Int32
    payload_offset: Int64
    ip_octets: Int32
    icmp_type: UInt8
    icmp_code: UInt8
    datagram: Int64
    fragment_octets: Int32
    quotes: Quotes
    data: UInt8

    def __len__(self) -> int:
        return len(self.time_ns)
