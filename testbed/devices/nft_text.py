"""Rules of an nftables.conf with their lines, and rules as the kernel lists them with their counters.

Pure text, no process.  Like iptables', a rule is identified by table, chain and place in its chain; the
table's name here begins with its family: `inet/filter`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from testbed.devices.packet_filter import Rule

FILE = "nftables.conf"
PLACE = "/etc/nftables.conf"
FAMILY_NAMES = frozenset({"ip", "ip6", "inet", "arp", "bridge", "netdev"})
OBJECTS = frozenset({"set", "map", "flowtable", "counter", "quota", "limit", "ct", "secmark", "synproxy"})
NOT_A_RULE = frozenset({"type", "policy", "comment", "devices", "flags"})
DEEPEST_INCLUDE = 16
_TOKEN = re.compile(r'"[^"\n]*"|#[^\n]*|\\\n|[{};\n]|(?:[^\s{};"#\\]|\\(?!\n))+|[ \t\r\f\v]+')
_COUNTER = re.compile(r"\bcounter packets (\d{1,20}) bytes (\d{1,20})")
_HANDLE = re.compile(r" # handle (\d{1,20})$")


@dataclass(frozen=True, slots=True)
class Written:
    """A rule as a file has it: `file` is the config's name (`nftables.conf`, `files/etc/nftables.d/x.nft`)."""

    rule: Rule
    file: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A rule as the kernel lists it; `counted` says whether it has a packet counter."""

    rule: Rule
    handle: int
    counted: bool


@dataclass(slots=True)
class _Statement:
    """Words up to the end of a statement; a brace that opens a block ends one, and `block` is what it holds."""

    words: list[str]
    line: int
    block: list[_Statement] | None = None

    @property
    def text(self) -> str:
        return " ".join(self.words)


def written_rules(files: Mapping[str, str]) -> list[Written]:
    """Every rule that the kernel has after loading nftables.conf, as far as the text tells, in order.

    `files` are a node's configs by name; what is included lies under `files/`.  Policies have index 0.
    """
    chains: dict[tuple[str, str], list[Written]] = {}
    policies: dict[tuple[str, str], Written] = {}
    defined: dict[str, str] = {}
    for file, statement in _included(FILE, files, DEEPEST_INCLUDE):
        words = [
            defined.get(word.removeprefix("$"), word) if word.startswith("$") else word for word in statement.words
        ]
        match words:
            case ["define", name, "=", *value]:
                defined[name] = " ".join(value)
            case ["flush", "ruleset", *_]:
                chains.clear()
                policies.clear()
            case ["table", *name] | [("add" | "create"), "table", *name]:
                _table(file, _qualified(name), statement.block or [], (chains, policies, defined))
            case [("add" | "insert" | "create") as verb, "rule", *rest]:
                table, (chain, *text) = _qualified_rest(rest)
                written = Written(Rule(table, chain, 1, " ".join(text), statement.line), file)
                own = chains.setdefault((table, chain), [])
                own.insert(0 if verb == "insert" else len(own), written)
            case [("delete" | "flush" | "destroy"), ("table" | "chain") as what, *rest]:
                table, (chain, *_) = _qualified_rest(rest) if what == "chain" else (_qualified(rest), [""])
                for key in [k for k in chains if k[0] == table and chain in ("", k[1])]:
                    del chains[key]
    found = list(policies.values())
    for rules in chains.values():
        found += [replace(w, rule=replace(w.rule, index=place)) for place, w in enumerate(rules, start=1)]
    return found


def made_tables(files: Mapping[str, str]) -> frozenset[str]:
    """The tables that nftables.conf makes, whether or not there are rules in them."""
    made = set()
    for _file, statement in _included(FILE, files, DEEPEST_INCLUDE):
        words = statement.words[1:] if statement.words[0] in ("add", "create") else statement.words
        if words[:1] == ["table"]:
            made.add(_qualified(words[1:]))
    return frozenset(made)


def _table(
    file: str,
    table: str,
    block: Sequence[_Statement],
    into: tuple[dict[tuple[str, str], list[Written]], dict[tuple[str, str], Written], dict[str, str]],
) -> None:
    chains, policies, defined = into
    for statement in block:
        if statement.words[:1] != ["chain"] or len(statement.words) < 2:
            continue
        chain = statement.words[1]
        for inner in statement.block or ():
            if inner.words[0] == "policy" and len(inner.words) > 1:
                rule = Rule(table, chain, 0, f"policy {inner.words[1]}", inner.line)
                policies[table, chain] = Written(rule, file)
            elif inner.words[0] not in NOT_A_RULE:
                words = [_value(word, defined) for word in inner.words]
                written = Written(Rule(table, chain, 1, " ".join(words), inner.line), file)
                chains.setdefault((table, chain), []).append(written)


def _value(word: str, defined: Mapping[str, str]) -> str:
    """What a `$NAME` was defined as, or the word itself."""
    return defined.get(word[1:], word) if word.startswith("$") else word


def _qualified(words: Sequence[str]) -> str:
    family, name = (words[0], words[1]) if len(words) > 1 and words[0] in FAMILY_NAMES else ("ip", "".join(words[:1]))
    return f"{family}/{name}"


def _qualified_rest(words: Sequence[str]) -> tuple[str, list[str]]:
    rest = list(words[2 if words[:1] and words[0] in FAMILY_NAMES else 1 :])
    return _qualified(words), rest or [""]


def _included(name: str, files: Mapping[str, str], depth: int) -> Iterator[tuple[str, _Statement]]:
    """Top-level statements, with those of included files in their place."""
    for statement in _statements(files.get(name, "")):
        if statement.words[0] != "include" or len(statement.words) < 2:
            yield name, statement
        elif depth:
            pattern = str(PurePosixPath(PLACE).parent / statement.words[1].strip("\"'"))
            for other in sorted(f for f in files if f.startswith("files/")):
                if fnmatchcase(other.removeprefix("files"), pattern):
                    yield from ((other, inner) for _, inner in _included(other, files, depth - 1))


def _statements(text: str) -> list[_Statement]:
    """Statements of a text; braces after `table` and `chain` hold statements, others belong to a rule."""
    found: list[_Statement] = []
    open_blocks: list[list[_Statement]] = [found]
    current: _Statement | None = None
    line, depth = 1, 0
    for match in _TOKEN.finditer(text):
        token, at = match[0], line
        line += token.count("\n")
        if token.startswith("#") or (token.isspace() and token != "\n") or token == "\\\n":
            continue
        if depth:
            depth += (token == "{") - (token == "}")
            if current is not None and token != "\n":
                current.words.append(token)
        elif token == "{":
            if current is not None and not _opens(current, len(open_blocks)):
                current.words.append(token)
                depth = 1
                continue
            if current is not None:
                current.block = []
                open_blocks.append(current.block)
            current = None
        elif token in ("}", ";", "\n"):
            current = None
            if token == "}" and len(open_blocks) > 1:
                open_blocks.pop()
        elif current is None:
            current = _Statement([token], at)
            open_blocks[-1].append(current)
        else:
            current.words.append(token)
    return found


def _opens(statement: _Statement, depth: int) -> bool:
    """Whether a brace after these words opens a block of statements rather than a set."""
    words = statement.words
    if depth == 1:
        return words[0] == "table" or words[:2] in (["add", "table"], ["create", "table"], ["add", "chain"])
    return depth == 2 and (words[0] == "chain" or words[0] in OBJECTS)


def listed_rules(text: str) -> list[Listed]:
    """Rules of `nft -a list ruleset`, whose lines nft itself wrote."""
    found: list[Listed] = []
    table = chain = ""
    index = 0
    for number, raw in enumerate(text.split("\n"), start=1):
        handle = _HANDLE.search(raw)
        line = _HANDLE.sub("", raw)
        words = line.split()
        if line.startswith("table ") and len(words) > 3:
            table, chain = f"{words[1]}/{words[2]}", ""
        elif line.startswith("\t") and not line.startswith("\t\t"):
            chain, index = (words[1], 0) if words[:1] == ["chain"] and len(words) > 1 else ("", 0)
        elif chain and handle and line.startswith("\t\t") and not line.startswith("\t\ttype "):
            index += 1
            counter = _COUNTER.search(line)
            packets, octets = (int(counter[1]), int(counter[2])) if counter else (0, 0)
            rule = Rule(table, chain, index, _COUNTER.sub("counter", line.strip()), number, packets, octets)
            found.append(Listed(rule, int(handle[1]), counter is not None))
    return found


def flushes_everything(text: str) -> int | None:
    """The line that flushes the whole ruleset, other programs' rules too."""
    return next((s.line for s in _statements(text) if s.words[:2] == ["flush", "ruleset"]), None)
