"""What a model's reader refuses: knows a file and a sentence about it."""

from __future__ import annotations

from pathlib import Path


class InvalidModel(Exception):
    """A file is no model, or a damaged one; `line` and `column` are 1 where the form has none."""

    def __init__(self, path: Path, found: str, expected: str, line: int = 1, column: int = 1) -> None:
        self.path, self.found, self.expected, self.line, self.column = path, found, expected, line, column
        super().__init__(path, found, expected, line, column)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: found {self.found}, expected {self.expected}"
