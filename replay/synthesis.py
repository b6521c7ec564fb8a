"""Payload for flows that are known only by size: deterministic, and valid where a proxy looks.

Pure. The same flow gets the same bytes in every window, so windows stay comparable.
"""

import hashlib
import re
import struct

_BLOCK_OCTETS = 65_536
_REQUEST_HEAD_LIMIT_OCTETS = 1_500


def synthesised(octets: int, *, seed: str, application: str, label: str, direction: int, first: bool) -> bytes:
    """`octets` bytes that a device of that application accepts.

    HTTP messages need room for a head and TLS hellos for their fields: where the recorded size is
    smaller than that, the smallest valid message is returned, which is longer than asked.
    """
    if application == "http":
        if direction == 0:
            return _http_request(octets, seed, label)
        return _http_response(octets, seed)
    if application == "tls" and direction == 0 and first:
        return _client_hello(octets, seed, label)
    return noise(octets, seed)


def noise(octets: int, seed: str) -> bytes:
    """Bytes that look random and depend on nothing but the seed."""
    block = hashlib.shake_128(seed.encode()).digest(min(octets, _BLOCK_OCTETS))
    whole, rest = divmod(octets, _BLOCK_OCTETS)
    return block * whole + block[:rest] if whole else block


def _http_request(octets: int, seed: str, label: str) -> bytes:
    host = re.sub(rb"[^!-~]", b"?", (label or "shadow.invalid").encode("ascii", "replace"))
    path = hashlib.blake2b(seed.encode(), digest_size=8).hexdigest().encode()
    if octets <= _REQUEST_HEAD_LIMIT_OCTETS:
        head = b"GET /" + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nX-Pad: "
        return head + b"p" * max(octets - len(head) - 4, 1) + b"\r\n\r\n"
    return _with_body(b"POST /" + path + b" HTTP/1.1\r\nHost: " + host, octets, seed)


def _http_response(octets: int, seed: str) -> bytes:
    return _with_body(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream", octets, seed)


def _with_body(head: bytes, octets: int, seed: str) -> bytes:
    # The length field is part of the length: a fixed width settles it.
    fixed = len(head) + len(b"\r\nContent-Length: ") + 12 + 4
    body = max(octets - fixed, 0)
    return head + b"\r\nContent-Length: " + b"%012d" % body + b"\r\n\r\n" + noise(body, seed)


def _client_hello(octets: int, seed: str, label: str) -> bytes:
    """A TLS 1.2 ClientHello (RFC 5246 7.4.1.2) with the SNI (RFC 6066), padded (RFC 7685)."""
    entropy = noise(32, seed)
    name = label.encode("ascii", "ignore")[:253]
    server_name = struct.pack("!HBH", len(name) + 3, 0, len(name)) + name
    extensions = struct.pack("!HH", 0, len(server_name)) + server_name if name else b""
    fixed = b"\x03\x03" + entropy + b"\x00" + b"\x00\x04\x13\x01\xc0\x2f" + b"\x01\x00"
    padding = octets - (9 + len(fixed) + 2 + len(extensions)) - 4
    if padding >= 0:
        extensions += struct.pack("!HH", 21, padding) + bytes(padding)
    body = fixed + struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack("!H", len(handshake)) + handshake
