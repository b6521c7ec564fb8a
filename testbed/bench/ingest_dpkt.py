"""The reference `dpkt`: flow totals with dpkt and a dictionary, as one writes them in an afternoon.

Run as a program on a capture and a number of packets; prints how many it read, in how many seconds, and the flows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def flow_totals(path: Path, most: int) -> tuple[int, int]:
    """Count packets and octets of every five-tuple; returns packets read and flows."""
    import dpkt  # noqa: PLC0415  the reference is not needed to run

    flows: dict[tuple[bytes, bytes, int, int, int], list[float]] = {}
    count = 0
    with path.open("rb") as file:
        for moment, frame in dpkt.pcap.Reader(file):
            count += 1
            packet = dpkt.ethernet.Ethernet(frame).data
            if isinstance(packet, (dpkt.ip.IP, dpkt.ip6.IP6)):
                protocol = packet.p if isinstance(packet, dpkt.ip.IP) else packet.nxt
                segment = packet.data
                ports = (segment.sport, segment.dport) if isinstance(segment, (dpkt.tcp.TCP, dpkt.udp.UDP)) else (0, 0)
                there, back = (packet.src, ports[0]), (packet.dst, ports[1])
                low, high = sorted((there, back))
                flow = flows.setdefault((low[0], high[0], low[1], high[1], protocol), [moment, moment, 0, 0])
                flow[1] = moment
                flow[2] += 1
                flow[3] += len(packet)
            if count >= most:
                break
    return count, len(flows)


if __name__ == "__main__":
    begun = time.perf_counter()
    packets, found = flow_totals(Path(sys.argv[1]), int(sys.argv[2]))
    told = {"packets": packets, "flows": found, "seconds": time.perf_counter() - begun}
    sys.stdout.write(json.dumps(told))
