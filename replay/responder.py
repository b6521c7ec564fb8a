"""Which captured flow is this that just arrived?  The server side cannot know it by port.

Pure: no socket, no clock. Behind NAT and proxies the peer's address says nothing, so a flow is
recognised, in this order, by its own source, by its first message, or, where the server speaks
first, by order of start. HTTP requests carry the shadow header and need none of this. Source NAT
mostly keeps the port, so an equal port decides between flows that are otherwise equal; and a port
speaks one protocol, so one that was seen to be spoken to first never speaks first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from replay.http_framing import SHADOW_HEADER, Head, looks_like_request
from replay.schedule import FORWARD, FlowScript

Endpoint = tuple[str, int]
_DISTINCTIVE_OCTETS = 2_048
_CLIENT_HELLO = b"\x16\x03"
_POSTGRES_STARTUP = b"\x00\x03\x00\x00"


class Recognition(Enum):
    """What is known when no flow is known."""

    UNKNOWN = 0
    AMBIGUOUS = 1
    HTTP = 2


@dataclass(slots=True)
class _Waiting:
    script: FlowScript
    order: int


class Recogniser:
    """The flows of a window that have started and not been found on the server side."""

    def __init__(self, served_ports: Iterable[tuple[int, int]] = ()) -> None:
        self._served = frozenset(served_ports)
        self._order = 0
        self._spoken_to: set[tuple[int, int]] = set()
        self.clear()

    def clear(self) -> None:
        """Forget every flow: a new window begins."""
        self._waiting: dict[str, _Waiting] = {}
        self._silent: dict[str, _Waiting] = {}
        self._first_words: dict[tuple[int, int], dict[bytes, dict[str, _Waiting]]] = {}
        self._indexed = False
        self._taken: dict[str, _Waiting] = {}
        self._by_id: dict[str, FlowScript] = {}
        self._by_source: dict[tuple[int, Endpoint], list[str]] = {}

    def started(self, script: FlowScript) -> None:
        """The client side of this flow is about to speak."""
        self._order += 1
        self._by_id[script.flow_id] = script
        self._wait(_Waiting(script, self._order))
        self._by_source.setdefault((script.protocol, script.source), []).append(script.flow_id)

    def ended(self, script: FlowScript, *, satisfied: bool = False) -> None:
        """The client side gave up or is `satisfied`: nothing that arrives later is this flow.

        Satisfied without having been found: what was taken for an equal flow was this one, so that
        equal flow is still to come. A slow link brings equal flows to a proxy out of order.
        """
        self._taken.pop(script.flow_id, None)
        if self._wait_no_more(script) is not None and satisfied:
            self._give_back(script)
        key = (script.protocol, script.source)
        same = self._by_source.get(key, [])
        if script.flow_id in same:
            same.remove(script.flow_id)
            if not same:
                del self._by_source[key]

    def take(self, script: FlowScript, local: Endpoint) -> None:
        """This flow has been found at this service."""
        waiting = self._wait_no_more(script)
        if waiting is not None:
            self._taken[script.flow_id] = waiting
        if script.messages and script.messages[0].direction == FORWARD:
            self._spoken_to.add((script.protocol, local[1]))

    def release(self, script: FlowScript) -> bool:
        """What was taken for this flow was something else (a health check); it waits again.

        False when its client side is gone, and it waits no more.
        """
        if script.flow_id not in self._by_source.get((script.protocol, script.source), []):
            return False
        self._order += 1
        self._taken.pop(script.flow_id, None)
        if script.flow_id not in self._waiting:
            self._wait(_Waiting(script, 0))
        return True

    def _wait(self, waiting: _Waiting) -> None:
        script = waiting.script
        self._waiting[script.flow_id] = waiting
        if not script.messages:
            return
        if script.messages[0].direction != FORWARD:
            self._silent[script.flow_id] = waiting
        elif self._indexed:
            self._index(waiting)

    def _wait_no_more(self, script: FlowScript) -> _Waiting | None:
        waiting = self._waiting.pop(script.flow_id, None)
        if waiting is None or not script.messages:
            return waiting
        if script.messages[0].direction != FORWARD:
            self._silent.pop(script.flow_id, None)
        elif self._indexed and not script.tagged:
            words = script.messages[0].payload[:_DISTINCTIVE_OCTETS]
            key = (script.protocol, len(words))
            same = self._first_words[key][words]
            del same[script.flow_id]
            if not same:
                del self._first_words[key][words]
        return waiting

    def _index(self, waiting: _Waiting) -> None:
        """Make a flow findable by its first words, unless the shadow header finds it."""
        script = waiting.script
        if script.tagged:
            return
        words = script.messages[0].payload[:_DISTINCTIVE_OCTETS]
        same_length = self._first_words.setdefault((script.protocol, len(words)), {})
        same_length.setdefault(words, {})[script.flow_id] = waiting

    def _index_all(self) -> None:
        """From now on first words are looked up: something arrived from a source that is no flow's own."""
        self._indexed = True
        for waiting in self._waiting.values():
            if waiting.script.messages and waiting.script.messages[0].direction == FORWARD:
                self._index(waiting)

    def _give_back(self, script: FlowScript) -> None:
        """Let the earliest flow that was taken and says the same as `script` wait again."""
        if script.tagged or not script.messages or script.messages[0].direction != FORWARD:
            return
        equal = [
            waiting
            for waiting in self._taken.values()
            if waiting.script.protocol == script.protocol
            and waiting.script.messages[0].payload == script.messages[0].payload
        ]
        if equal:
            other = min(equal, key=lambda waiting: waiting.order)
            del self._taken[other.script.flow_id]
            self._wait(other)

    def by_tag(self, head: Head) -> tuple[FlowScript, int] | None:
        """The flow and the request's sequence that the shadow header names."""
        flow_id, _, sequence = (head.value(SHADOW_HEADER) or b"").decode("latin-1").rpartition("-")
        script = self._by_id.get(flow_id)
        if script is None or not sequence.isdecimal() or len(sequence) > 9:
            return None
        number = int(sequence)
        if number >= len(script.messages) or script.messages[number].direction != FORWARD:
            return None
        return script, number

    def by_source(self, protocol: int, peer: Endpoint, local: Endpoint) -> FlowScript | None:
        """The flow whose own source address and port arrived: the path only routed or DNATed."""
        same = self._by_source.get((protocol, peer))
        if same is None:
            return None
        found = [waiting.script for flow_id in same if (waiting := self._waiting.get(flow_id)) is not None]
        if len(found) == 1:
            return found[0]
        return min(found, key=lambda script: _distance(script, local), default=None)

    def by_content(self, protocol: int, said: bytes, local: Endpoint, peer: Endpoint) -> FlowScript | Recognition:
        """The flow whose first message these first bytes are; equal ones in order of start.

        AMBIGUOUS while more bytes could still make a flow of them, HTTP when they begin a request.
        """
        if not self._indexed:
            self._index_all()
        whole: list[_Waiting] = []
        partial = False
        for (spoken, length), by_words in self._first_words.items():
            if spoken != protocol or not by_words:
                continue
            if length <= len(said):
                whole += by_words.get(said[:length], {}).values()
            elif not partial:
                partial = any(words.startswith(said) for words in by_words)
        if whole:
            return min(
                whole,
                key=lambda w: (
                    w.script.source[1] != peer[1],
                    _distance(w.script, local),
                    -len(w.script.messages[0].payload[:_DISTINCTIVE_OCTETS]),
                    w.order,
                ),
            ).script
        if partial:
            return Recognition.AMBIGUOUS
        return Recognition.HTTP if looks_like_request(said) else Recognition.UNKNOWN

    def by_datagram(self, said: bytes, protocol: int, local: Endpoint) -> FlowScript | None:
        """The flow of which this whole datagram is some forward message, earliest start first."""
        best: tuple[tuple[int, int, int], FlowScript] | None = None
        for waiting in self._waiting.values():
            script = waiting.script
            if script.protocol != protocol:
                continue
            for index, message in enumerate(script.messages):
                if message.direction == FORWARD and message.payload == said:
                    rank = (_distance(script, local), index, waiting.order)
                    if best is None or rank < best[0]:
                        best = (rank, script)
                    break
        return best[1] if best else None

    def by_order(self, protocol: int, local: Endpoint, peer: Endpoint, *, sure: bool) -> FlowScript | None:
        """The earliest started flow in which the server speaks first, for a silent connection.

        A flow whose target port nobody listens on was sent elsewhere by a DNAT or a proxy, so it
        may be this one; a flow whose target port has its own listener is only looked for there.
        With `sure` only the captured port will do: a silent client may be about to speak.
        """
        if not self._silent:
            return None
        silent: list[tuple[tuple[bool, int, int], FlowScript]] = []
        for waiting in self._waiting.values():
            script = waiting.script
            if script.protocol != protocol or not script.messages:
                continue
            same_source_port = script.source[1] == peer[1]
            if script.messages[0].direction == FORWARD:
                if same_source_port:
                    return None
                continue
            moved = script.target[1] != local[1]
            if moved and (protocol, script.target[1]) in self._served:
                continue
            if moved and not same_source_port and (sure or (protocol, local[1]) in self._spoken_to):
                continue
            rank = (not same_source_port, _distance(script, local), waiting.order)
            silent.append((rank, script))
        return min(silent, key=lambda ranked: ranked[0], default=(None, None))[1]


def _distance(script: FlowScript, local: Endpoint) -> int:
    """How far the arrival point is from the captured target: 0 same, 1 same port, 2 other."""
    if script.target == local:
        return 0
    return 1 if script.target[1] == local[1] else 2


def courtesy(said: bytes) -> bytes:
    """What a live server would answer to a proxy's health check; empty when there is no answer.

    Covers HAProxy's httpchk, ssl-hello-chk, redis-check and pgsql-check.
    """
    if said.startswith(_CLIENT_HELLO):
        return b"\x15\x03\x01\x00\x02\x02\x28"  # alert: handshake_failure proves a TLS server
    if said.upper().startswith((b"PING\r\n", b"*1\r\n$4\r\nPING\r\n")):
        return b"+PONG\r\n"
    if len(said) >= 8 and said[4:8] == _POSTGRES_STARTUP:
        return b"R\x00\x00\x00\x08\x00\x00\x00\x00"
    return b""


def courtesy_response(head: Head) -> bytes:
    """The answer to an HTTP request that no captured flow sent: alive."""
    if head.method in (b"HEAD", b"OPTIONS"):
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
