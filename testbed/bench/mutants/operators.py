"""Mutation operators: functions from a parsed config file to a changed one, which know the lines that they touched.

    deleted  moved  inserted  doubled  reworded  without_option  renamed  element_removed  remarked

An operator is made with its target and applied to a ConfigText; where the target is not there once it raises
NoSuchLine. The lines it touched are the truth that blame is held against. Pure. It may not know whether a mutation
does harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.bench.mutants.lines import ConfigLine, ConfigText, NoSuchLine


@dataclass(frozen=True, slots=True)
class TrueLine:
    """A line that did it: as it was before, as it is after the mutation, or of a file that the mutation left alone."""

    node: str
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Edited:
    """A file after an operator, and the lines that the operator touched."""

    text: str
    touched: tuple[TrueLine, ...]


Operator = Callable[[ConfigText], Edited]


def deleted(block: str, words: str) -> Operator:
    """The line is gone."""

    def act(source: ConfigText) -> Edited:
        line = source.the(block, words)
        return _edited(source, _without(source, line), (line.text,))

    return act


def moved(block: str, words: str, behind: str) -> Operator:
    """The line stands directly behind another one of its block; what did it is the order of those two."""

    def act(source: ConfigText) -> Edited:
        line, other = source.the(block, words), source.the(block, behind)
        rows = _without(source, line)
        at = other.number - (1 if line.number < other.number else 0)
        return _edited(source, [*rows[:at], line.text, *rows[at:]], (line.text, other.text))

    return act


def swapped(block: str, words: str, other: str) -> Operator:
    """Two lines of a block change places."""

    def act(source: ConfigText) -> Edited:
        one, two = source.the(block, words), source.the(block, other)
        rows = _rows(source)
        rows[one.number - 1], rows[two.number - 1] = two.text, one.text
        return _edited(source, rows, (one.text, two.text))

    return act


def inserted(block: str, before: str, *texts: str) -> Operator:
    """New lines stand before a line of a block, indented as it is."""

    def act(source: ConfigText) -> Edited:
        line = source.the(block, before)
        new = [_indent(line) + text for text in texts]
        rows = _rows(source)
        return _edited(source, [*rows[: line.number - 1], *new, *rows[line.number - 1 :]], new)

    return act


def appended(block: str, after: str, *texts: str) -> Operator:
    """New lines stand behind a line of a block, indented as it is."""

    def act(source: ConfigText) -> Edited:
        line = source.the(block, after)
        new = [_indent(line) + text for text in texts]
        rows = _rows(source)
        return _edited(source, [*rows[: line.number], *new, *rows[line.number :]], new)

    return act


def created(*texts: str) -> Operator:
    """A file that was not there; of its lines the rules can have done it."""

    def act(source: ConfigText) -> Edited:
        if source.lines:
            raise NoSuchLine(f"{source.place}: there already, expected no such file")
        return _edited(source, list(texts), [text for text in texts if text.startswith("-A ")])

    return act


def doubled(block: str, words: str) -> Operator:
    """The line stands there twice, one after the other."""

    def act(source: ConfigText) -> Edited:
        line = source.the(block, words)
        return appended(block, words, line.text.strip())(source)

    return act


def reworded(block: str, words: str, new: str) -> Operator:
    """These words of the line are others: a wrong cost, port, address, action, or the same thing said differently."""

    def act(source: ConfigText) -> Edited:
        line = source.the(block, words)
        text = _sub(line.text, words, new)
        rows = _rows(source)
        rows[line.number - 1] = text
        return _edited(source, rows, (line.text, text))

    return act


def without_option(block: str, words: str, option: str) -> Operator:
    """A rule forgets one of its conditions with its value, and so matches more."""

    def act(source: ConfigText) -> Edited:
        line = source.the(block, words)
        if not line.holds(option):
            raise NoSuchLine(f"{source.place}:{line.number}: no {option!r} in the line, expected it")
        text = _sub(line.text, option, "")
        rows = _rows(source)
        rows[line.number - 1] = text
        return _edited(source, rows, (line.text, text))

    return act


def split(block: str, words: str, *halves: str) -> Operator:
    """One line becomes several, each with other words in the place of these."""

    def act(source: ConfigText) -> Edited:
        line = source.the(block, words)
        new = [_sub(line.text, words, half) for half in halves]
        rows = _rows(source)
        return _edited(source, [*rows[: line.number - 1], *new, *rows[line.number :]], (line.text, *new))

    return act


def renamed(old: str, new: str) -> Operator:
    """A name of the file's own (chain, set, backend, route-map) is another one, wherever it stands."""
    whole = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])")

    def act(source: ConfigText) -> Edited:
        rows = [whole.sub(new, line.text) for line in source.lines]
        touched = [text for line, text in zip(source.lines, rows, strict=True) if line.text != text]
        if len(touched) < 2:
            raise NoSuchLine(f"{source.place}: {len(touched)} lines with the name {old!r}, expected two or more")
        return _edited(source, rows, touched)

    return act


def element_removed(block: str, element: str) -> Operator:
    """A set of nftables has one element less."""

    def act(source: ConfigText) -> Edited:
        line = next((one for one in source.lines if one.block == block and one.holds("elements =")), None)
        inner = re.search(r"\{(.*)\}", line.text) if line else None
        elements = [e.strip() for e in inner[1].split(",")] if inner else []
        if line is None or elements.count(element) != 1 or len(elements) < 2:
            raise NoSuchLine(f"{source.place}: elements {elements} in {block!r}, expected {element!r} and others")
        kept = ", ".join(e for e in elements if e != element)
        text = line.text[: line.text.index("{")] + "{ " + kept + " }"
        rows = _rows(source)
        rows[line.number - 1] = text
        return _edited(source, rows, (line.text, text))

    return act


def remarked(block: str, before: str, remark: str) -> Operator:
    """A comment; nothing that a program reads."""
    return inserted(block, before, remark)


def _sub(text: str, words: str, new: str) -> str:
    pattern = r"(?<!\S)" + r"\s+".join(re.escape(word) for word in words.split()) + r"(?!\S)"
    if new:
        return re.sub(pattern, lambda _: new, text, count=1)
    return re.sub(pattern + r" ?", "", text, count=1).rstrip()


def _indent(line: ConfigLine) -> str:
    return line.text[: len(line.text) - len(line.text.lstrip())]


def _rows(source: ConfigText) -> list[str]:
    return [line.text for line in source.lines]


def _without(source: ConfigText, gone: ConfigLine) -> list[str]:
    return [line.text for line in source.lines if line.number != gone.number]


def _edited(source: ConfigText, rows: Sequence[str], touched: Sequence[str]) -> Edited:
    lines = dict.fromkeys(TrueLine(source.node, source.place, text.strip()) for text in touched)
    return Edited("".join(f"{row}\n" for row in rows), tuple(lines))
