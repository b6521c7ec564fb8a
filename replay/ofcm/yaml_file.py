"""A model as YAML: classes for people first, then the cells they follow from, a line each.

Text is composed into nodes, never constructed into objects, and every value's type is known from its column, so that
no tag and no plain word such as `no` can change what is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from replay.ofcm.checked import LIMITS, BadRow, grouping_of, model_from
from replay.ofcm.classes import POOLED_PORT, classes
from replay.ofcm.delays import DELAY_COLUMNS, KPIS, none
from replay.ofcm.errors import InvalidModel
from replay.ofcm.grouping import Grouping
from replay.ofcm.model import CELL_TYPES, Ofcm

SCHEMA_VERSION = 1
MOST_CELLS = 5_000
LARGEST_FILE_OCTETS = 32 * 1024 * 1024
_PLAIN = re.compile(r"[A-Za-z0-9](?:[\w./:-]*[\w./-])?", re.ASCII)
_KEYS = ("ofcm", "grouping", "classes", "columns", "cells")
_COLUMNS = (*CELL_TYPES, *KPIS)
_HEAD = "The observed flow control model. Classes follow from the cells and are checked against them."


def write_yaml(model: Ofcm, path: Path) -> None:
    """Write the model. Raises ValueError for one of more than MOST_CELLS cells, which no person reads."""
    if len(model.cells) > MOST_CELLS:
        raise ValueError(
            f"a model of {len(model.cells):,} cells, expected at most {MOST_CELLS:,} in YAML: use .parquet"
        )
    grouping = model.grouping
    document = CommentedMap()
    document.yaml_set_start_comment(_HEAD)
    document["ofcm"] = SCHEMA_VERSION
    zones = {_text(zone.name): _flow([str(network) for network in zone.networks]) for zone in grouping.zones}
    document["grouping"] = CommentedMap({"zones": CommentedMap(zones), **{n: getattr(grouping, n) for n in LIMITS}})
    document["classes"] = CommentedSeq([_flow_map(one) for one in _listed(model)])
    document["columns"] = _flow(list(_COLUMNS))
    document["cells"] = CommentedSeq(list(_rows(model)))
    writer = YAML(pure=True)
    writer.width = 1_000_000
    with path.open("w", encoding="utf-8", newline="\n") as file:
        writer.dump(document, file)


def read_yaml(path: Path) -> Ofcm:
    """Read what write_yaml wrote. Raises InvalidModel at the line of what is wrong."""
    root = _composed(path)
    parts = _Parts(path, root)
    version = parts.whole(parts.of(root, "ofcm", "an observed flow control model's keys"))
    if version != SCHEMA_VERSION:
        raise parts.error(root, f"schema {version}", f"schema {SCHEMA_VERSION}")
    for key in _KEYS:
        parts.of(root, key, f"the keys {', '.join(_KEYS)}")
    grouping = _grouping(parts, parts.of(root, "grouping"))
    heads = [parts.text(one) for one in parts.sequence(parts.of(root, "columns"))]
    if tuple(heads) != _COLUMNS:
        raise parts.error(parts.of(root, "columns"), "other columns", f"[{', '.join(_COLUMNS)}]")
    rows = parts.sequence(parts.of(root, "cells"))
    model = _model(parts, grouping, rows)
    _check_classes(parts, parts.of(root, "classes"), model)
    return model


def _listed(model: Ofcm) -> Iterator[dict[str, Any]]:
    for row in classes(model).to_dict("records"):
        port = "" if row["port"] == POOLED_PORT else row["port"]
        yield {
            "source": row["source"],
            "destination": row["destination"],
            "service": f"{row['protocol']}/{port}",
            "application": row["application"],
            "disposition": row["disposition"],
            "flows": _number(row["flows"]),
            "share": [round(row[name], 4) for name in ("share", "share_low", "share_high")],
            **{kpi: None if math.isnan(row[kpi]) else round(row[kpi]) for kpi in KPIS},
        }


def _rows(model: Ofcm) -> Iterator[CommentedSeq]:
    said: list[list[CommentedMap]] = [[_flow_map({}) for _ in KPIS] for _ in range(len(model.cells))]
    for cell, kpi, bucket, flows in model.delays.itertuples(index=False):
        said[cell][kpi][int(bucket)] = _number(flows)
    columns = [model.cells[name].tolist() for name in CELL_TYPES]
    for row, values in enumerate(zip(*columns, strict=True)):
        yield _flow([*(_number(one) if isinstance(one, float) else one for one in values), *said[row]])


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def _flow(values: list[Any]) -> CommentedSeq:
    listed = CommentedSeq([_value(one) for one in values])
    listed.fa.set_flow_style()
    return listed


def _flow_map(values: dict[str, Any]) -> CommentedMap:
    mapped = CommentedMap({key: _value(one) for key, one in values.items()})
    mapped.fa.set_flow_style()
    return mapped


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return _flow(value)
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Quoted unless it is a plain word, as line breaks of other alphabets do not survive other styles."""
    return text if _PLAIN.fullmatch(text) else DoubleQuotedScalarString(text)


def _composed(path: Path) -> Node:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_OCTETS + 1)
    except OSError as error:
        raise InvalidModel(path, error.strerror or "an unreadable file", "a readable file") from None
    if len(raw) > LARGEST_FILE_OCTETS:
        raise InvalidModel(path, "a file of more than 32 MiB", "a smaller YAML file, or Parquet")
    try:
        root = YAML(typ="safe", pure=True).compose(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InvalidModel(path, f"the octet 0x{raw[error.start]:02x}", "UTF-8 text, or Parquet", line) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise InvalidModel(path, " ".join((error.problem or "broken YAML").split()), "YAML", line, column) from None
    except (YAMLError, ValueError, OverflowError, LookupError, AttributeError, AssertionError, TypeError) as error:
        raise InvalidModel(path, " ".join(str(error).split())[:120] or "broken YAML", "well-formed YAML") from None
    except RecursionError:
        raise InvalidModel(path, "very deep nesting", "an observed flow control model") from None
    if not isinstance(root, Node):
        raise InvalidModel(path, "an empty file", "an observed flow control model")
    return root


class _Parts:
    """Nodes taken apart, each refusal at its line and column."""

    def __init__(self, path: Path, root: Node) -> None:
        self.path = path
        self.mapping(root)

    def error(self, node: Node, found: str, expected: str) -> InvalidModel:
        mark = node.start_mark
        return InvalidModel(self.path, found, expected, mark.line + 1, mark.column + 1)

    def mapping(self, node: Node) -> list[tuple[Node, Node]]:
        if not isinstance(node, MappingNode):
            raise self.error(node, _kind(node), "a mapping")
        seen: set[str] = set()
        for key, _ in node.value:
            text = self.text(key)
            if text in seen:
                raise self.error(key, f"the key {text[:60]!r} twice", "every key once")
            seen.add(text)
        return list(node.value)

    def of(self, node: Node, key: str, expected: str = "") -> Node:
        for name, value in self.mapping(node):
            if name.value == key:
                return value
        raise self.error(node, f"no key {key!r}", expected or f"{key!r} here")

    def sequence(self, node: Node) -> list[Node]:
        if not isinstance(node, SequenceNode):
            raise self.error(node, _kind(node), "a list")
        return list(node.value)

    def text(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise self.error(node, _kind(node), "text")
        return str(node.value)

    def whole(self, node: Node) -> int:
        text = self.text(node)
        try:
            number = int(text)
        except ValueError:
            number = 1 << 64
        if not -(1 << 63) <= number < 1 << 63:
            raise self.error(node, repr(text[:60]), "a whole number of 64 bits")
        return number

    def number(self, node: Node) -> float:
        text = self.text(node)
        try:
            return float(text)
        except ValueError:
            raise self.error(node, repr(text[:60]), "a number") from None


def _kind(node: Node) -> str:
    if isinstance(node, ScalarNode):
        return repr(str(node.value)[:60])
    return "a list" if isinstance(node, SequenceNode) else "a mapping"


def _grouping(parts: _Parts, node: Node) -> Grouping:
    for key, _ in parts.mapping(node):
        if key.value not in ("zones", *LIMITS):
            raise parts.error(key, f"unknown key {str(key.value)[:60]!r}", f"one of: zones, {', '.join(LIMITS)}")
    zones = {
        parts.text(name): [parts.text(one) for one in parts.sequence(networks)]
        for name, networks in parts.mapping(parts.of(node, "zones"))
    }
    limits = {name: parts.whole(parts.of(node, name)) for name in LIMITS}
    try:
        return grouping_of(zones, limits)
    except ValueError as error:
        raise parts.error(node, f"a grouping that cannot be: {error}", "zones and limits that agree") from None


def _model(parts: _Parts, grouping: Grouping, rows: list[Node]) -> Ofcm:
    if len(rows) > MOST_CELLS:
        raise parts.error(rows[MOST_CELLS], f"more than {MOST_CELLS} cells", "fewer cells, or Parquet")
    read = {"str": parts.text, "int64": parts.whole, "float64": parts.number}
    columns: dict[str, list[Any]] = {name: [] for name in CELL_TYPES}
    delays: list[tuple[int, int, int, float]] = []
    for place, row in enumerate(rows):
        values = parts.sequence(row)
        if len(values) != len(_COLUMNS):
            raise parts.error(row, f"{len(values)} values", f"{len(_COLUMNS)}, one a column")
        for (name, dtype), value in zip(CELL_TYPES.items(), values, strict=False):
            columns[name].append(read[dtype](value))
        for kpi, counts in enumerate(values[len(CELL_TYPES) :]):
            pairs = parts.mapping(counts)
            delays += [(place, kpi, parts.whole(bucket), parts.number(flows)) for bucket, flows in pairs]
    cells = pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in CELL_TYPES.items()})
    table = pd.DataFrame(delays, columns=list(DELAY_COLUMNS)) if delays else none()
    try:
        return model_from(grouping, cells, table)
    except BadRow as bad:
        raise parts.error(rows[min(max(bad.row, 0), len(rows) - 1)], bad.found, bad.expected) from None


def _check_classes(parts: _Parts, node: Node, model: Ofcm) -> None:
    """The written classes against those of the cells: an edit by hand that would do nothing is told."""
    writer, text = YAML(pure=True), StringIO()
    writer.width = 1_000_000
    writer.dump(CommentedSeq([_flow_map(one) for one in _listed(model)]), text)
    wanted = YAML(typ="safe", pure=True).compose(text.getvalue())
    given = parts.sequence(node)
    due = [] if wanted is None else list(wanted.value)
    for place, (one, other) in enumerate(zip(given, due, strict=False)):
        if _exact(one) != _exact(other):
            raise parts.error(one, "a class edited by hand", f"class {place + 1} as the cells have it: edit those")
    if len(given) != len(due):
        raise parts.error(node, f"{len(given)} classes", f"the {len(due)} that follow from the cells")


def _exact(node: Node) -> object:
    """What does not hang on the last bit of a logarithm: all but shares and KPIs."""
    if not isinstance(node, MappingNode):
        return None
    return [
        (key.value, value.value) for key, value in node.value if isinstance(value, ScalarNode) and key.value not in KPIS
    ]
