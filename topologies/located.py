"""YAML files read into pydantic models with every error at its line and column.

This file may not know what a lab is: any strict model can be read. YAML is composed into nodes, never constructed into
objects, so no tag in a file can run or build anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Loc = tuple[str | int, ...]
Position = tuple[int, int]
M = TypeVar("M", bound=BaseModel)

LARGEST_FILE_OCTETS = 4 * 1024 * 1024
DEEPEST_NESTING = 40
MOST_VALUES = 200_000
_SHOWN_CHARACTERS = 60
_START: Position = (1, 1)


class Strict(BaseModel):
    """The base of every model of a file: frozen, and an unknown key is an error, as a typo must not pass silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file: where, what stands there and what should."""

    path: Path
    line: int
    column: int
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: found {self.found}, expected {self.expected}"


class InvalidLab(Exception):
    """A file of a lab is wrong; caught to end with exit code 2 and every problem told, one a line."""

    def __init__(
        self, path: Path, line: int, column: int, found: str, expected: str, also: Iterable[Problem] = ()
    ) -> None:
        self.path, self.line, self.column, self.found, self.expected = path, line, column, found, expected
        self.problems = (Problem(path, line, column, found, expected), *also)
        super().__init__(path, line, column, found, expected, self.problems[1:])

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> InvalidLab:
        """One error from at least one problem, in the order of the file."""
        first, *rest = sorted(dict.fromkeys(problems), key=lambda p: (str(p.path), p.line, p.column))
        return cls(first.path, first.line, first.column, first.found, first.expected, rest)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(frozen=True, slots=True)
class Located(Generic[M]):
    """A validated model that still knows where in its file each value stands."""

    path: Path
    model: M
    places: _Places

    def line(self, *loc: str | int) -> int:
        """The line (from 1) of the value at a location such as ("topology", "links", 0)."""
        return self.places.of_value(loc)[0]

    def problem(self, loc: Loc, found: str, expected: str, *, at_key: bool = False) -> Problem:
        """A problem at a location; `at_key` points at the key instead of its value."""
        line, column = self.places.of_key(loc) if at_key else self.places.of_value(loc)
        return Problem(self.path, line, column, found, expected)


class _Places:
    """Positions of keys and values by location."""

    def __init__(self) -> None:
        self._values: dict[Loc, Position] = {}
        self._keys: dict[Loc, Position] = {}

    def put(self, loc: Loc, value: Position, key: Position | None = None) -> None:
        self._values[loc] = value
        if key is not None:
            self._keys[loc] = key

    def known(self, loc: Loc) -> Loc:
        """The location with the steps removed that a validator, not the file, put in."""
        known: Loc = ()
        for step in loc:
            if (*known, step) in self._values:
                known = (*known, step)
        return known

    def of_value(self, loc: Loc) -> Position:
        return self._values.get(self.known(loc), _START)

    def of_key(self, loc: Loc) -> Position:
        known = self.known(loc)
        return self._keys.get(known) or self._values.get(known, _START)


def read_yaml(path: Path, model: type[M]) -> M:
    """The file as a model; InvalidLab names file, line, column, what was found and what was expected."""
    return read_located(path, model).model


def read_located(path: Path, model: type[M]) -> Located[M]:
    """Like `read_yaml`, with positions kept for checks that look at more than one value."""
    reader = _Reader(path)
    value = reader.value()
    try:
        valid = model.model_validate(value)
    except ValidationError as error:
        schema = model.model_json_schema(by_alias=True)
        details = error.errors(include_url=False)
        raise InvalidLab.of([_problem(path, reader.places, schema, detail) for detail in details]) from None
    return Located(path, valid, reader.places)


def nearest(word: str, choices: Iterable[str]) -> str:
    """`one of: a, b, c`, led by the choice the writer probably meant."""
    listed = sorted(choices)
    close = difflib.get_close_matches(word[:_SHOWN_CHARACTERS], listed, n=1)
    meant = f"{close[0]!r} perhaps; " if close else ""
    return f"{meant}one of: {', '.join(listed)}" if listed else "nothing here"


def shown(value: object) -> str:
    """A value of a file as an error shows it: short, and containers by kind only."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…")
        case int() | float():
            return repr(value)
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"


def _problem(path: Path, places: _Places, schema: Mapping[str, Any], detail: ErrorDetails) -> Problem:
    loc = detail["loc"]
    if detail["type"] == "missing":
        line, column = places.of_key(loc[:-1])
        return Problem(path, line, column, f"no key {loc[-1]!r}", f"{loc[-1]!r} here")
    if detail["type"] == "extra_forbidden":
        line, column = places.of_key(loc)
        key = str(loc[-1])
        return Problem(
            path, line, column, f"unknown key {shown(key)}", nearest(key, _keys_at(schema, schema, loc[:-1]))
        )
    line, column = places.of_value(loc)
    return Problem(path, line, column, shown(detail["input"]), _wanted(detail))


def _wanted(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "model_type" | "dict_type":
            return "a mapping"
        case "tuple_type" | "list_type":
            return "a list"
        case "too_long":
            return f"at most {detail['ctx']['max_length']} entries"
        case "too_short":
            return f"at least {detail['ctx']['min_length']} entries"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return detail["msg"].replace("Input should be", "a value")
        case _:
            return detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _keys_at(root: Mapping[str, Any], schema: Mapping[str, Any], loc: Loc) -> set[str]:
    if "$ref" in schema:
        return _keys_at(root, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], loc)
    if "anyOf" in schema:
        return set().union(*(_keys_at(root, option, loc) for option in schema["anyOf"]))
    if not loc:
        return set(schema.get("properties", ()))
    patterned = list(schema.get("patternProperties", {}).values())
    options = (schema.get("properties", {}).get(loc[0]), schema.get("items"), schema.get("additionalProperties"))
    below = next((option for option in (*options, *patterned) if isinstance(option, dict)), None)
    return _keys_at(root, below, loc[1:]) if below is not None else set()


class _Reader:
    """Composes one document and turns its nodes into plain values, noting where each stood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places = _Places()
        self._problems: list[Problem] = []
        self._left = MOST_VALUES

    def value(self) -> object:
        root = self._composed(self._text())
        if root is None:
            raise InvalidLab(self.path, 1, 1, "an empty file", "a YAML mapping")
        value = self._plain(root, (), 0)
        if self._problems:
            raise InvalidLab.of(self._problems)
        return value

    def _text(self) -> str:
        try:
            with self.path.open("rb") as file:
                raw = file.read(LARGEST_FILE_OCTETS + 1)
        except OSError as error:
            raise InvalidLab(self.path, 1, 1, error.strerror or "an unreadable file", "a readable YAML file") from None
        if len(raw) > LARGEST_FILE_OCTETS:
            raise InvalidLab(self.path, 1, 1, "a file of more than 4 MiB", "a smaller YAML file")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            good = raw[: error.start]
            line = good.count(b"\n") + 1
            column = error.start - (good.rfind(b"\n") + 1) + 1
            raise InvalidLab(self.path, line, column, f"the octet 0x{raw[error.start]:02x}", "UTF-8 text") from None

    def _composed(self, text: str) -> Node | None:
        try:
            return YAML(typ="safe", pure=True).compose(text)  # type: ignore[no-any-return]
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else _START
            found, expected = _yaml_words(_one_line(error.problem))
            raise InvalidLab(self.path, line, column, found, expected) from None
        except YAMLError as error:
            raise InvalidLab(self.path, 1, 1, _one_line(str(error)), "well-formed YAML") from None
        except (ValueError, OverflowError, IndexError, AttributeError, AssertionError) as error:
            # the scanner lets these out for escapes beyond Unicode and broken directives
            raise InvalidLab(self.path, 1, 1, _one_line(str(error)), "well-formed YAML") from None
        except RecursionError:
            raise InvalidLab(self.path, 1, 1, "very deep nesting", f"at most {DEEPEST_NESTING} levels") from None

    def _plain(self, node: Node, loc: Loc, depth: int, key: Position | None = None) -> object:
        position = _position(node)
        self.places.put(loc, position, key)
        self._left -= 1
        if depth > DEEPEST_NESTING:
            raise InvalidLab(self.path, *position, "very deep nesting", f"at most {DEEPEST_NESTING} levels")
        if self._left < 0:
            raise InvalidLab(self.path, *position, f"more than {MOST_VALUES} values", "a smaller file")
        if isinstance(node, MappingNode):
            return self._mapping(node, loc, depth)
        if isinstance(node, SequenceNode):
            return [self._plain(item, (*loc, i), depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(node, position)

    def _mapping(self, node: MappingNode, loc: Loc, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            position = _position(key_node)
            if not isinstance(key_node, ScalarNode):
                self._problems.append(Problem(self.path, *position, "a container as a key", "a text key"))
                continue
            key = str(key_node.value)
            if key in found:
                found_text = f"duplicate key {shown(key)}"
                expected = f"the key once (first at line {first_line[key]})"
                self._problems.append(Problem(self.path, *position, found_text, expected))
                continue
            first_line[key] = position[0]
            found[key] = self._plain(value_node, (*loc, key), depth + 1, position)
        return found

    def _scalar(self, node: Node, position: Position) -> object:
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        match tag:
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int":
                return _integer(text)
            case "float":
                return _float(text)
            case "str" | "timestamp" | "merge" | "value":
                return text
            case _:
                self._problems.append(Problem(self.path, *position, f"the tag {shown(str(node.tag))}", "no tag"))
                return text


def _integer(text: str) -> int | str:
    try:
        return int(text, 0 if text.lower().lstrip("+-").startswith(("0x", "0o")) else 10)
    except ValueError:
        return text


def _float(text: str) -> float | str:
    try:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text


def _position(node: Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _yaml_words(problem: str) -> tuple[str, str]:
    wanted, but_got, got = problem.removeprefix("expected ").partition(", but got ")
    if problem.startswith("expected ") and but_got:
        return got, wanted
    return problem.removeprefix("found "), "well-formed YAML"


def _one_line(text: str | None) -> str:
    words = " ".join((text or "broken YAML").split())
    return words[:160]
