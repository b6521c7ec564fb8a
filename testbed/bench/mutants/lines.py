"""Config files as lines that know the block they stand in: what mutation operators work on.

Four dialects: rules in iptables-save's format, nftables, FRR and HAProxy; anything else has one block without a name.
Pure. It may not know what an operator does, nor who judges what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

HAPROXY_HEADS = frozenset({"global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist"})


@dataclass(frozen=True, slots=True)
class ConfigLine:
    """One line, numbered from 1; `block` is the chain, section, interface or table and chain that it belongs to."""

    number: int
    text: str
    block: str

    def holds(self, words: str) -> bool:
        """Whether these words stand in the line one after the other, whatever is between them and around them."""
        mine, theirs = self.text.split(), words.split()
        return any(mine[at : at + len(theirs)] == theirs for at in range(len(mine) - len(theirs) + 1))


class NoSuchLine(ValueError):
    """An operator asked for exactly one line, and the file has none such or several."""


@dataclass(frozen=True, slots=True)
class ConfigText:
    """A node's file, parsed; `file` is its name below configs/<node>/."""

    node: str
    file: str
    lines: tuple[ConfigLine, ...]

    @classmethod
    def of(cls, node: str, file: str, text: str) -> ConfigText:
        """Any text at all; what is in no block has the block ''."""
        rows = text.splitlines()
        blocks = tuple(_dialect(file)(rows))
        return cls(node, file, tuple(ConfigLine(n, t, b) for n, (t, b) in enumerate(zip(rows, blocks, strict=True), 1)))

    @property
    def place(self) -> str:
        """The path that a blame has."""
        return f"configs/{self.node}/{self.file}"

    def the(self, block: str, words: str) -> ConfigLine:
        """The one line of this block that holds these words; raises NoSuchLine."""
        found = [line for line in self.lines if line.block == block and line.holds(words)]
        if len(found) != 1:
            raise NoSuchLine(f"{self.place}: {len(found)} lines with {words!r} in {block!r}, expected one")
        return found[0]


def _dialect(file: str) -> Callable[[list[str]], Iterator[str]]:
    name = file.rpartition("/")[2]
    if name.endswith("tables.rules"):
        return _chains
    return {"nftables.conf": _braces, "frr.conf": _indented, "haproxy.cfg": _sections}.get(name, _nothing)


def _nothing(rows: list[str]) -> Iterator[str]:
    yield from ("" for _ in rows)


def _chains(rows: list[str]) -> Iterator[str]:
    """`filter/FORWARD` for a rule, `filter` for a chain's declaration and the rest of its table."""
    table = ""
    for row in rows:
        if row.startswith("*"):
            table = row[1:].strip()
        words = row.split()
        yield f"{table}/{words[1]}" if words[:1] == ["-A"] and len(words) > 1 else table


def _braces(rows: list[str]) -> Iterator[str]:
    """`table inet office/chain forward`; a line that opens a block stands in the one around it."""
    open_blocks: list[str] = []
    for row in rows:
        code = row.split("#")[0].rstrip()
        opens, closes = code.endswith("{"), code.strip() == "}"
        if closes and open_blocks:
            open_blocks.pop()
        yield "/".join(open_blocks)
        if opens:
            open_blocks.append(code.rstrip("{").strip())


def _indented(rows: list[str]) -> Iterator[str]:
    """`interface ens4`, `router bgp 65001`, `route-map x permit 10`; a head stands in its own block."""
    block = ""
    for row in rows:
        if row and not row.startswith((" ", "!")):
            head = row.split()[0] in {"interface", "router", "route-map", "vrf"}
            block = row.strip() if head else ""
        yield block


def _sections(rows: list[str]) -> Iterator[str]:
    """`backend pages`, `defaults`; a head stands in its own block."""
    block = ""
    for row in rows:
        words = row.split()
        if words and not row[0].isspace() and words[0] in HAPROXY_HEADS:
            block = " ".join(words[:2])
        yield block
