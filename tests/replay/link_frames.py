"""Frames written by hand: Ethernet with ARP, IPv4, IPv6, neighbour discovery and DHCP, for who reads link layers."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from tests.replay.capture_files import pcap

SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def octets(text):
    return ip_address(text).packed


def ethernet(source, target, kind, body, vlan=None):
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return mac(target) + mac(source) + tag + struct.pack(">H", kind) + body


def ip(source, target, protocol, body, ttl=64):
    if ":" in source:
        return struct.pack(">IHBB", 6 << 28, len(body), protocol, ttl) + octets(source) + octets(target) + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, ttl, protocol, 0)
    return head + octets(source) + octets(target) + body


def tcp(source_port, target_port, flags, payload=b"", sequence=1):
    return struct.pack(">HHIIBBHHH", source_port, target_port, sequence, 1, 80, flags, 65535, 0, 0) + payload


def udp(source_port, target_port, payload):
    return struct.pack(">HHHH", source_port, target_port, 8 + len(payload), 0) + payload


def arp(operation, sender_mac, sender, target_mac, target):
    body = b"\0\1\x08\0\6\4" + struct.pack(">H", operation)
    body += mac(sender_mac) + octets(sender) + mac(target_mac) + octets(target)
    return ethernet(sender_mac, target_mac if operation == 2 else "ff:ff:ff:ff:ff:ff", 0x0806, body)


def neighbour(kind, source_mac, source, address, option=b""):
    body = struct.pack(">BBHI", kind, 0, 0, 0) + (octets(address) if address else b"") + option
    return ethernet(source_mac, "33:33:00:00:00:01", 0x86DD, ip(source, "ff02::1", 58, body, ttl=255))


def router_advertisement(source_mac, source, prefix, length):
    option = struct.pack(">BBBBIII", 3, 4, length, 0xC0, 86400, 14400, 0) + octets(prefix)
    body = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option
    return ethernet(source_mac, "33:33:00:00:00:01", 0x86DD, ip(source, "ff02::1", 58, body, ttl=255))


def lease(server_mac, server, client_mac, address, mask, router):
    message = struct.pack(">BBBBIHH", 2, 1, 6, 0, 7, 0, 0) + b"\0" * 4 + octets(address) + b"\0" * 8
    message += mac(client_mac).ljust(16, b"\0") + b"\0" * 192 + b"\x63\x82\x53\x63"
    message += b"\x35\1\5" + b"\1\4" + octets(mask) + b"\3\4" + octets(router) + b"\xff"
    return ethernet(server_mac, client_mac, 0x0800, ip(server, address, 17, udp(67, 68, message)))


class Talk:
    """Frames in order of time; a conversation is what both MACs send, with their TTLs."""

    def __init__(self):
        self.frames = []

    def add(self, *frames):
        for frame in frames:
            self.frames.append((len(self.frames) * 0.001, frame))
        return self

    def asks(self, client, server, port, answered=True, vlan=None):
        """`client` and `server` are (MAC, address, TTL); a TCP flow with a request and its answer."""
        kind = 0x86DD if ":" in client[1] else 0x0800
        source_port = 20000 + len(self.frames)

        def sent(one, other, body):
            return ethernet(one[0], other[0], kind, ip(one[1], other[1], 6, body, one[2]), vlan)

        self.add(sent(client, server, tcp(source_port, port, SYN)))
        if answered:
            self.add(
                sent(server, client, tcp(port, source_port, SYN | ACK)),
                sent(client, server, tcp(source_port, port, ACK, sequence=2)),
                sent(client, server, tcp(source_port, port, ACK, b"ask", sequence=2)),
                sent(server, client, tcp(port, source_port, ACK, b"answer", sequence=2)),
                sent(client, server, tcp(source_port, port, FIN | ACK, sequence=5)),
                sent(server, client, tcp(port, source_port, FIN | ACK, sequence=8)),
            )
        return self

    def written(self, path, link_type=1):
        path.write_bytes(pcap(self.frames, nanoseconds=True, link_type=link_type))
        return path
