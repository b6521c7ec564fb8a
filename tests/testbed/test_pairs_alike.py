"""What a window leaves is gone when the next one begins, and what cannot go is told: on a real shadow."""

from __future__ import annotations

import socket
import time

from testbed.network.namespace import Namespace
from testbed.pairs import alike
from testbed.pairs.alike import begin_alike, left_over
from tests.testbed.labs import READY_SECONDS, listener, on_shadow
from tests.testbed.pairs_lab import CLIENT, SERVER, SERVICE, pairs_lab
from topologies.load import load_lab


def asking(namespace: Namespace) -> socket.socket:
    """A connection to the load balancer, from one of the addresses that the edge stands for."""
    return namespace.inside(lambda: socket.create_connection((SERVICE, 80), 2.0, (CLIENT, 0)))


def test_tracked_connections_and_neighbours_go_and_an_open_session_is_told(tmp_path, monkeypatch):
    (tmp_path / "quick").mkdir()
    lab = load_lab(pairs_lab(tmp_path / "quick"))
    monkeypatch.setattr(alike, "QUIET_SECONDS", 0.3)

    def job(shadow):
        server = listener(shadow.boxes["web1"].namespace, SERVER, 8080)
        shadow.wait_ready(READY_SECONDS, lambda reason: None)
        line = asking(shadow.boxes["outside"].namespace)
        line.sendall(b"GET / HTTP/1.1\r\n")
        time.sleep(0.2)
        known = shadow.readings()
        started = time.monotonic()
        held = left_over(shadow.readings(), begin_alike(shadow, known))
        waited = time.monotonic() - started
        line.close()
        server.close()
        gone = left_over(shadow.readings(), begin_alike(shadow, known))
        return left_over(known, 0), held, waited, left_over(shadow.readings(), 0), gone

    before, held, waited, after, _ = on_shadow(lab.topology, tmp_path, job, ready=False)
    assert before.connections > 0
    assert before.sessions == 1
    assert waited >= 0.3
    assert held.sessions == 1
    assert held.reason == "1 proxy sessions of an earlier window were still open"
    assert (after.connections, after.sessions, after.reason) == (0, 0, "")
