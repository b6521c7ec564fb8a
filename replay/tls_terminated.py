"""Flows of TLS that some device of the lab ends: what to say inside, where only the capture's sizes are known.

Pure: a schedule in, a schedule out. The captured ciphertext is nonsense to whoever has another key. So the client
makes a handshake of its own, with what the captured ClientHello offered, and inside it asks and is answered in
HTTP/1.1, as much as was captured and as long after. What HTTP it was nobody can know: `/` and a padded header stand for
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby

from replay.client_hello import TlsOffer, offer_in
from replay.http_framing import tagged
from replay.payload import is_client_hello, server_name
from replay.schedule import FORWARD, REVERSE, TCP, FlowScript, Message, Schedule, as_http
from replay.synthesis import synthesised
from replay.tls_records import Turn, turns

_HANDSHAKE_OCTETS = 120
"""Of sizes alone: what is shorter, behind both hellos, is Finished, a ticket or an alert."""

_RECORD_OCTETS = 29


def terminated(schedule: Schedule, ends_tls: Callable[[str, int], bool]) -> Schedule:
    """The schedule in which clients of `ends_tls(address, port)` make a handshake of their own."""
    return replace(
        schedule,
        scripts=tuple(
            _inside(script) if script.protocol == TCP and ends_tls(*script.target) else script
            for script in schedule.scripts
        ),
    )


def _inside(script: FlowScript) -> FlowScript:
    """The same flow with its plaintext made up; unchanged when it does not begin with a ClientHello."""
    if not script.messages or script.messages[0].direction != FORWARD:
        return script
    hello = script.messages[0].payload
    if not is_client_hello(hello):
        return script
    made_up = hello == _made_up(script, hello)
    offer = TlsOffer(server_name(hello)) if made_up else offer_in(hello) or TlsOffer(server_name(hello))
    known = None if made_up else turns(script.messages)
    said = _said(script, offer.server_name or script.target[0], known if known is not None else _by_size(script))
    return as_http(replace(script, messages=said, application="http", tls=offer))


def _made_up(script: FlowScript, hello: bytes) -> bytes:
    """What the schedule makes up where no ClientHello was captured: it offers nothing that a client did."""
    seed, name = f"{script.flow_id}:0", server_name(hello)
    return synthesised(len(hello), seed=seed, application="tls", label=name, direction=FORWARD, first=True)


def _by_size(script: FlowScript) -> list[Turn]:
    """Roughly: what is longer than handshake messages are, behind the two hellos."""
    later = script.messages[2:]
    return [
        Turn(message.direction, message.gap_ns, len(message.payload) - _RECORD_OCTETS)
        for message in later
        if len(message.payload) > _HANDSHAKE_OCTETS
    ]


def _said(script: FlowScript, host: str, known: Iterable[Turn]) -> tuple[Message, ...]:
    """Requests with their responses; what the server says unasked and what is never answered has no place in HTTP."""
    runs = [(direction, list(run)) for direction, run in groupby(known, key=lambda turn: turn.direction)]
    if runs and runs[0][0] == REVERSE:
        del runs[0]
    if runs and runs[-1][0] == FORWARD:
        del runs[-1]
    said: list[Message] = []
    for direction, run in runs:
        octets, sequence = sum(turn.octets for turn in run), len(said)
        if direction == FORWARD:
            octets -= len(tagged(b"\r\n", f"{script.flow_id}-{sequence}")) - 2
        payload = synthesised(
            octets,
            seed=f"{script.flow_id}:{sequence}",
            application="http",
            label=host,
            direction=direction,
            first=not said,
        )
        # the handshake's own time stands for the first gap
        said.append(Message(direction, run[0].gap_ns if said else 0, payload))
    return tuple(said)
