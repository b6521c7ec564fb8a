"""An observed flow control model out of its file, with what is wrong with it told as all bad input is."""

from __future__ import annotations

from pathlib import Path

from replay.ofcm import Ofcm
from replay.ofcm.errors import InvalidModel
from replay.ofcm.store import load
from testbed.errors import InvalidInput


def read_model(path: Path) -> Ofcm:
    """The model in a file; raises InvalidInput: what is wrong with it, and where."""
    try:
        return load(path)
    except InvalidModel as problem:
        raise InvalidInput(problem.path, problem.line, problem.column, problem.found, problem.expected) from None
