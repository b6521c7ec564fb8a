"""A stream between two nodes that tells whether every octet arrived, and processes that keep a machine busy."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.network.namespace import Namespace
from tests.testbed.labs import connected, listener


@contextmanager
def streaming(sender: Namespace, receiver: Namespace, address: str, octets: int) -> Iterator[list[tuple[int, str]]]:
    """A TCP flow under the block of that many octets, or with 0 as many as it takes till the end of the block.

    Afterwards the list holds (octets, digest) of what was sent and of what arrived.
    """
    over = threading.Event()
    server = listener(receiver, address, 9_200)
    client = connected(sender, address, 9_200, 10.0)
    server.settimeout(10.0)
    end, _ = server.accept()
    found: list[tuple[int, str]] = []

    def send() -> None:
        client.settimeout(30.0)
        digest, left, sent, chances = hashlib.blake2b(), octets, 0, random.Random(1)
        with client:
            while left or not (octets or over.is_set()):
                piece = chances.randbytes(min(left or 65_536, 65_536))
                digest.update(piece)
                client.sendall(piece)
                sent += len(piece)
                left = max(0, octets - sent)
        found.append((sent, digest.hexdigest()))

    def receive() -> None:
        end.settimeout(30.0)
        digest, got = hashlib.blake2b(), 0
        with end:
            while piece := end.recv(262_144):
                digest.update(piece)
                got += len(piece)
        found.append((got, digest.hexdigest()))

    threads = [threading.Thread(target=act) for act in (send, receive)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()
        server.close()
