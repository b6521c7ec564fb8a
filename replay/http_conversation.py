"""The client side of cleartext HTTP: what is a response is known by HTTP's own framing, not by captured octets.

A proxy may lengthen or shorten what passes it, so every message is written down as it was found.
"""

from replay.conversation import Stage, TcpConversation
from replay.http_framing import Framed, MessageReader, NotHttp, response_head
from replay.observed import CLIENT, Attempt, Transfer
from replay.schedule import FORWARD, REVERSE, FlowScript


class HttpConversation(TcpConversation):
    """One flow of HTTP requests that carry the shadow header; a status other than the captured one is an error."""

    def __init__(self, stage: Stage, script: FlowScript, attempt: Attempt) -> None:
        super().__init__(stage, script, attempt)
        self._reader = MessageReader(responses=True)

    def _allowed_ns(self) -> int:
        """A whole response may be thought over piece by piece."""
        think, run = 0, self._cursor
        while self.script.answer_to(run) > 0:
            run += 1
            think += self.script.messages[run].gap_ns
        return super()._allowed_ns() + think

    def _heard(self, octets: int) -> bool:
        return False

    def _say(self, payload: bytes) -> None:
        if self._cursor == 0 or self.script.messages[self._cursor - 1].direction == REVERSE:
            self._reader.expect(payload.split(b" ", 1)[0])
        sent = self.attempt.sent_octets
        self._note(self._cursor, FORWARD, sent, sent + len(payload))
        super()._say(payload)

    def _hear(self, octets: int) -> None:
        try:
            framed = self._reader.feed(bytes(memoryview(self._reactor.buffer)[:octets]))
        except NotHttp:
            self._conclude("http_error")
            return
        for response in framed:
            if self._sock is not None:
                self._on_response(response)

    def _on_response(self, response: Framed) -> None:
        messages = self.script.messages
        first = self._cursor
        if first >= len(messages) or messages[first].direction != REVERSE:
            return
        last = first
        while self.script.answer_to(last) > 0:
            last += 1
        self._note(first, REVERSE, response.start, response.end)
        self._cursor = last + 1
        captured = response_head(m.payload for m in messages[first : last + 1])
        if captured is not None and captured.status != response.head.status:
            self._conclude("http_error")
            return
        self._advance()

    def _on_end(self) -> None:
        if not self._done:
            framed = self._reader.end_of_stream()
            if framed is not None:
                self._on_response(framed)
        if self._sock is not None:
            super()._on_end()

    def _note(self, sequence: int, direction: int, start: int, end: int) -> None:
        answer = self.script.answer_to(sequence) if direction == FORWARD else -1
        self._stage.notes.transfers.append(
            Transfer(CLIENT, -1, self.script.flow_id, sequence, direction, start, end, answer)
        )

    def _write_down(self) -> None:
        """Every message has been written down as it passed."""
