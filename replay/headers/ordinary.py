"""The columns of ordinary packets by compiled code (static/headers.c says which those are). Knows no reason.

What is not is named by row, for replay.headers.decode to read; what is has the columns that it would get there.
"""

from __future__ import annotations

import ctypes
from dataclasses import fields

import numpy as np

from replay.capture.records import Records
from replay.columns import Int64, Packets, Quotes
from replay.compiled import address

_FILLED = {
    "protocol": np.uint8,
    "version": np.uint8,
    "source_address": np.uint8,
    "destination_address": np.uint8,
    "source_port": np.uint16,
    "destination_port": np.uint16,
    "sequence": np.uint32,
    "acknowledgement": np.uint32,
    "tcp_flags": np.uint8,
    "hop_limit": np.uint8,
    "payload_octets": np.int32,
    "captured_octets": np.int32,
    "payload_offset": np.int64,
    "ip_octets": np.int32,
    "icmp_type": np.uint8,
    "icmp_code": np.uint8,
}
_COLUMNS = [one.name for one in fields(Packets) if one.name not in {"quotes", "data"}]
_WIDE = np.zeros(0, np.int64)


def no_quotes() -> Quotes:
    """The quotes of packets among which is no ICMP error."""
    octet, port = np.zeros(0, np.uint8), np.zeros(0, np.uint16)
    return Quotes(_WIDE, octet, octet, octet.reshape(-1, 16), octet.reshape(-1, 16), port, port)


def ordinary_packets(library: ctypes.CDLL, records: Records) -> tuple[Packets, Int64]:
    """A row for every record, and which of them are not ordinary and so not filled in."""
    count = len(records)
    columns = {
        name: np.empty((count, 16) if name.endswith("_address") else count, dtype) for name, dtype in _FILLED.items()
    }
    others = np.empty(count, np.int64)
    data = np.ascontiguousarray(records.data)
    places = [np.ascontiguousarray(column) for column in (records.offset, records.captured, records.link_type)]
    left = library.ordinary_headers(
        address(data),
        ctypes.c_int64(len(data)),
        ctypes.c_int64(count),
        *map(address, places),
        (ctypes.c_void_p * len(columns))(*(column.ctypes.data for column in columns.values())),
        address(others),
    )
    packets = Packets(
        time_ns=records.time_ns,
        **columns,
        datagram=np.arange(count),
        fragment_octets=np.zeros(count, np.int32),
        quotes=no_quotes(),
        data=records.data,
    )
    return packets, others[:left].copy()


def merged(ordinary: Packets, rows: Int64, others: Packets, kept: Int64, place: Int64) -> Packets:
    """The kept rows of both: `others` are those that stand at `rows`; `place` is where each of them comes to stand."""
    columns = {name: getattr(ordinary, name) for name in _COLUMNS}
    if len(others):
        for name in (*_FILLED, "fragment_octets"):
            columns[name][rows] = getattr(others, name)
    if len(kept) < len(ordinary):
        columns = {name: column[kept] for name, column in columns.items()}
        columns["datagram"] = np.arange(len(kept))
    columns["datagram"][place] = others.datagram
    return Packets(**columns, quotes=others.quotes, data=ordinary.data)
