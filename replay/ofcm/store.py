"""Models in files: Parquet for programs and size, YAML for people; both give back the very model.

Knows how a model lies in a file, not what it means. Files come from outside: nothing in them is run, and what is not
canonical (order, duplicates, addresses written otherwise) is refused, so that equal models are equal files.
"""

from __future__ import annotations

import os
from pathlib import Path

from replay.ofcm.errors import InvalidModel
from replay.ofcm.model import Ofcm
from replay.ofcm.parquet_file import MAGIC, read_parquet, write_parquet
from replay.ofcm.yaml_file import read_yaml, write_yaml

YAML_SUFFIXES = (".yaml", ".yml")
SUFFIXES = (*YAML_SUFFIXES, ".parquet")


def save(model: Ofcm, path: Path) -> None:
    """Write the model as its file's suffix says, whole or not at all.

    Raises ValueError for another suffix, and for a model too large for YAML.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"the name {path.name!r}, expected one that ends with {' or '.join(SUFFIXES)}")
    written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        (write_yaml if path.suffix in YAML_SUFFIXES else write_parquet)(model, written)
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def load(path: Path) -> Ofcm:
    """Read a model, in whichever form the file's content is. Raises InvalidModel: path, line, found, expected."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise InvalidModel(path, error.strerror or "an unreadable file", "a readable file") from None
    return read_parquet(path) if start == MAGIC else read_yaml(path)
