"""The first exchange of a flow as a script of its own: long enough to know what the network does with such flows.

Pure: a script in, a script out. Think times are cut short, because what is asked is whether, not when.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from replay.http_framing import SHADOW_HEADER
from replay.schedule import FORWARD, REVERSE, TCP, FlowScript, Message

GAP_NS = 20_000_000
"""No side thinks longer than this in a probe."""

ANSWER_OCTETS = 65_536
"""So much of an answer is waited for, or all of it when there is less; a longer HTTP response gets a short body."""


def first_exchange(script: FlowScript, probe_id: str, start_ns: int) -> FlowScript:
    """The script cut after its first answer, or after what the server says first; a reset ends it at once."""
    said = list(script.messages)
    opening = list(takewhile(lambda m: m.direction == said[0].direction, said))
    answer: list[Message] = []
    if opening and opening[0].direction == FORWARD:
        answer = list(takewhile(lambda m: m.direction == REVERSE, said[len(opening) :]))
    answer = _short_response(answer) if script.tagged else _enough(answer)
    if opening and opening[0].direction == REVERSE:
        opening = _enough(opening)
    kept = (replace(m, gap_ns=min(m.gap_ns, GAP_NS), payload=_renamed(script, m, probe_id)) for m in opening + answer)
    close = "rst_forward" if script.protocol == TCP else script.close
    return replace(script, flow_id=probe_id, start_ns=start_ns, messages=tuple(kept), close=close)


def opening_octets(script: FlowScript) -> int:
    """How many octets the first exchange takes both ways."""
    return sum(len(message.payload) for message in first_exchange(script, script.flow_id, 0).messages)


def _enough(answer: list[Message]) -> list[Message]:
    octets = 0
    for place, message in enumerate(answer, start=1):
        octets += len(message.payload)
        if octets >= ANSWER_OCTETS:
            return answer[:place]
    return answer


def _short_response(answer: list[Message]) -> list[Message]:
    """A response of the same status; it had a body, so that it may have another one."""
    said = b"".join(message.payload for message in answer)
    if len(said) <= ANSWER_OCTETS:
        return answer
    status = said.split(b"\r\n", 1)[0]
    return [replace(answer[0], payload=status + b"\r\nContent-Length: 2\r\n\r\nok")]


def _renamed(script: FlowScript, message: Message, probe_id: str) -> bytes:
    """A tagged request names its flow in its shadow header."""
    if not script.tagged or message.direction != FORWARD:
        return message.payload
    old, new = (SHADOW_HEADER + b": " + name.encode("ascii") + b"-" for name in (script.flow_id, probe_id))
    at = message.payload.lower().find(old.lower())
    return message.payload if at < 0 else message.payload[:at] + new + message.payload[at + len(old) :]
