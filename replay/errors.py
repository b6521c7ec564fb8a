"""What replay refuses to read: knows a file and a sentence about it, nothing of formats or flows."""

from __future__ import annotations

from pathlib import Path


class InvalidCapture(Exception):
    """Raised when a file given as a capture is not usable as one; names the file, what was found and expected."""

    def __init__(self, path: Path, found: str, expected: str, line: int | None = None) -> None:
        self.path = path
        self.found = found
        self.expected = expected
        self.line = line
        super().__init__(path, found, expected, line)

    def __str__(self) -> str:
        place = f"{self.path}" if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: found {self.found}, expected {self.expected}"
