"""Everything the testbed raises on purpose, each class because someone catches it.

    Exception
    ├── InvalidInput    the cli: exit 2, the writer of the file is asked to mend it
    ├── CommandFailed   the experiment: a program inside the shadow said no
    ├── NotReady        the experiment: a protocol state did not come in time
    ├── Unsupported     the cli: exit 4, with the remedy
    ├── NotOurs         clean-up: something that another program made is left alone
    └── RevertFailed    the cli: exit 4, louder than any verdict

The leaf packages define their own (`topologies.located.InvalidLab`). This file knows no room of the house.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from topologies.located import InvalidLab


class InvalidInput(Exception):
    """A file or argument is wrong; caught to end with exit code 2 and the place to mend."""

    def __init__(
        self, path: Path, line: int, column: int, found: str, expected: str, also: Iterable[InvalidInput] = ()
    ) -> None:
        self.path, self.line, self.column, self.found, self.expected = path, line, column, found, expected
        self.also = tuple(also)
        super().__init__(path, line, column, found, expected, self.also)

    @classmethod
    def of(cls, error: InvalidLab) -> InvalidInput:
        """The same problems as one InvalidInput, so that whoever reads a change or a policy catches one class."""
        first, *rest = (cls(p.path, p.line, p.column, p.found, p.expected) for p in error.problems)
        return cls(first.path, first.line, first.column, first.found, first.expected, rest)

    def __str__(self) -> str:
        own = f"{self.path}:{self.line}:{self.column}: found {self.found}, expected {self.expected}"
        return "\n".join((own, *(str(other) for other in self.also)))


class CommandFailed(Exception):
    """A program inside the shadow ended badly; caught as a refused config is a FAIL of the change."""

    def __init__(self, node: str, argv: Sequence[str], status: int, stderr: str) -> None:
        self.node, self.argv, self.status, self.stderr = node, tuple(argv), status, stderr
        super().__init__(node, self.argv, status, stderr)

    def __str__(self) -> str:
        said = self.stderr.strip()
        return f"{self.node}: {shlex.join(self.argv)} ended with status {self.status}" + (
            f": {said}" if said else " and said nothing"
        )


class NotReady(Exception):
    """A state that was awaited did not come in time; caught to tell the last state seen instead of a bare time-out."""

    def __init__(self, awaited: str, last_seen: str) -> None:
        self.awaited, self.last_seen = awaited, last_seen
        super().__init__(awaited, last_seen)

    def __str__(self) -> str:
        return f"waited in vain for {self.awaited}; last seen: {self.last_seen or 'nothing'}"


class Unsupported(Exception):
    """This kernel or machine lacks something; caught to end with exit code 4 and say what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy
        super().__init__(what, remedy)

    def __str__(self) -> str:
        return f"not possible on this machine: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


class NotOurs(Exception):
    """Something that was to be removed does not carry our run's mark; caught so that clean-up leaves it alone."""

    def __init__(self, what: str, owner: str = "") -> None:
        self.what, self.owner = what, owner
        super().__init__(what, owner)

    def __str__(self) -> str:
        return f"{self.what} is not ours" + (f" but belongs to {self.owner}" if self.owner else "") + "; left alone"


class RevertFailed(Exception):
    """A change or fault could not be undone; caught at the very top, for nothing measured after it can be trusted."""

    def __init__(self, what: str, detail: str = "") -> None:
        self.what, self.detail = what, detail
        super().__init__(what, detail)

    def __str__(self) -> str:
        return f"COULD NOT REVERT {self.what}" + (f": {self.detail}" if self.detail else "")
