"""Which message of a script is this datagram?  By its bytes first, by its place where bytes do not tell.

Pure. A datagram carries no room for a tag, so what the captured payload says is its tag: every message is found at most
once, those that overtake others are found where they belong, and what was lost is what is left over.
"""

from collections.abc import Iterable

from replay.schedule import Message


class DatagramOrder:
    """The messages of one direction of a flow that have not arrived yet."""

    def __init__(self, messages: Iterable[Message], direction: int) -> None:
        self._open: dict[int, bytes] = {}
        self._by_payload: dict[bytes, list[int]] = {}
        self.expected = 0
        for sequence, message in enumerate(messages):
            if message.direction == direction:
                self._open[sequence] = message.payload
                self._by_payload.setdefault(message.payload, []).append(sequence)
                self.expected += 1

    def expects(self, said: bytes) -> bool:
        """Whether a message that is still to come says exactly this."""
        return any(sequence in self._open for sequence in self._by_payload.get(said, ()))

    def arrived(self, said: bytes, cursor: int) -> int:
        """The sequence of the message that this is, or -1 for one too many (a duplicate, a stranger).

        Of equal ones the first at or behind `cursor`, else the last before it. Bytes that no message has (a device
        rewrote them) are the first message still to come there; a payload known and already here is a duplicate.
        """
        equal = self._by_payload.get(said)
        if equal is None:
            found = next((sequence for sequence in self._open if sequence >= cursor), -1)
        else:
            still = [sequence for sequence in equal if sequence in self._open]
            before = still[-1] if still else -1
            found = next((sequence for sequence in still if sequence >= cursor), before)
        self._open.pop(found, None)
        return found
