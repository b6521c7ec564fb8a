"""Documents that a run or a series wrote, read back: one JSON document a file, or one a line.

May not know what any of them tells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from testbed.errors import InvalidInput

Document = TypeVar("Document", bound=BaseModel)


def read_document(path: Path, model: type[Document], expected: str) -> Document:
    """The document in a file; FileNotFoundError without one, InvalidInput where it is something else."""
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InvalidInput(path, 1, 1, _said(error, "the document: "), expected) from None


def read_lines(path: Path, model: type[Document], expected: str) -> list[Document]:
    """The documents of a file of lines; none where there is no file. Raises InvalidInput with the line."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            found.append(model.model_validate_json(line))
        except ValidationError as error:
            raise InvalidInput(path, number, 1, _said(error), expected) from None
    return found


def _said(error: ValidationError, whole: str = "") -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else f"{whole}{first['msg']}"
