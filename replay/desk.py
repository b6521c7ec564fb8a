"""What a connection or a datagram that has arrived needs of whoever took it in.

The port between the servers and what arrives at them, so that neither side's file need know the other's.
"""

from typing import Protocol

from replay.observed import Notes
from replay.reactor import Reactor
from replay.responder import Recogniser


class Guest(Protocol):
    """A connection that has arrived, as its desk sees it."""

    @property
    def in_a_flow(self) -> bool:
        """Whether it is one flow's own, and ends with the window."""

    def rebase(self) -> None:
        """A window begins: count this connection's streams from now on."""

    def abort(self) -> None:
        """Close with a reset, which also ends the state that middle boxes keep."""

    def recognise_again(self) -> None:
        """Look again at what no flow explained before."""


class Desk(Protocol):
    """Who takes in what arrives: its notes, its clock, its recogniser, and other shards to pass strangers on to."""

    reactor: Reactor
    notes: Notes
    recogniser: Recogniser

    def number(self) -> int:
        """The next connection number."""

    def add(self, guest: Guest) -> None:
        """Keep a connection."""

    def drop(self, guest: Guest) -> None:
        """Let go of a connection that closed."""

    def retry_unknown(self) -> None:
        """A flow waits again: perhaps a connection that nobody recognised is it."""
