"""Captured TLS for tests: both ends of a real handshake in memory, and a certificate of a day."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from replay.schedule import FORWARD, REVERSE

CLIENT, SERVER = FORWARD, REVERSE


@dataclass(frozen=True)
class Certificate:
    """Where a key with its certificate is, in one file."""

    path: Path

    @property
    def pem(self) -> str:
        return self.path.read_text()

    @property
    def certificate(self) -> str:
        return self.pem[self.pem.index("-----BEGIN CERTIFICATE") :]


def certificate(folder: Path, name: str) -> Certificate:
    """A self-signed certificate for a host name."""
    key, leaf, both = folder / f"{name}.key", folder / f"{name}.crt", folder / f"{name}.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-days", "1"]
    made += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(leaf)]
    subprocess.run(made, check=True, capture_output=True)
    both.write_text(key.read_text() + leaf.read_text())
    return Certificate(both)


def said(
    own: Certificate, name: str, exchanges: list[tuple[int, int]], greatest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> list[tuple[int, bytes]]:
    """What both sides put on the wire, by turns: (direction, octets) of exchanges of (request, response) octets."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode, client.maximum_version = False, ssl.CERT_NONE, greatest
    client.set_alpn_protocols(["h2", "http/1.1"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own.path)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    wire: list[tuple[int, bytes]] = []

    def flush(bio: ssl.MemoryBIO, other: ssl.MemoryBIO, direction: int) -> None:
        sent = bio.read()
        if sent:
            wire.append((direction, sent))
            other.write(sent)

    # the two memories are crossed over by hand, so that every flight is seen
    to_client_wire, to_server_wire = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server_wire, server_hostname=name)
    far = server.wrap_bio(to_server, to_client_wire, server_side=True)
    open_ends: set[int] = set()
    while len(open_ends) < 2:
        for number, end in ((CLIENT, near), (SERVER, far)):
            try:
                end.do_handshake()
                open_ends.add(number)
            except ssl.SSLWantReadError:
                pass
            flush(to_server_wire, to_server, CLIENT)
            flush(to_client_wire, to_client, SERVER)
    for asked, answered in exchanges:
        near.write(b"q" * asked)
        flush(to_server_wire, to_server, CLIENT)
        far.read(asked)
        far.write(b"a" * answered)
        flush(to_client_wire, to_client, SERVER)
        near.read(answered)
    return wire
