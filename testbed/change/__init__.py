"""A reversible edit of a network's configs, links or state: what it is and how it is read."""

from testbed.change.model import Blame, Change, CommandChange, Expected, Line, LinkChange
from testbed.change.sources import read_change

__all__ = ["Blame", "Change", "CommandChange", "Expected", "Line", "LinkChange", "read_change"]
