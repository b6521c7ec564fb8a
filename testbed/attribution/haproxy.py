"""haproxy.cfg as sections: which line belongs to which, and which sections serve a port.

Knows the file format only.  Unknown lines belong to the section that they stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HEADS = frozenset(
    {"global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "cache", "program"}
    | {"mailers", "http-errors", "ring", "log-forward", "fcgi-app"}
)
_PORTS = re.compile(r":(\d+)(?:-(\d+))?(?=[,\s]|$)")


@dataclass(frozen=True, slots=True)
class Section:
    """One section; `first` and `last` are line numbers from 1."""

    kind: str
    name: str
    first: int
    last: int
    lines: tuple[str, ...]

    @property
    def label(self) -> str:
        """`backend web_http`, or `global`."""
        return f"{self.kind} {self.name}".strip()

    def serves(self, port: int) -> bool:
        """Whether a `bind` line takes this port."""
        binds = (line for line in self.lines if line.split()[:1] == ["bind"])
        ranges = (found for line in binds for found in _PORTS.findall(line.split("#")[0]))
        return any(int(low) <= port <= int(high or low) for low, high in ranges)

    def backends(self) -> list[str]:
        """The names that `use_backend` and `default_backend` send to."""
        words = (line.split() for line in self.lines)
        return [w[1] for w in words if len(w) > 1 and w[0] in ("use_backend", "default_backend")]


def sections(text: str) -> list[Section]:
    """The sections of a file in order; any text at all gives some, never an error."""
    written = text.splitlines()
    heads = [n for n, line in enumerate(written) if line.split()[:1] and line.split()[0] in HEADS]
    found = []
    for place, at in enumerate(heads):
        end = heads[place + 1] if place + 1 < len(heads) else len(written)
        words = written[at].split()
        name = words[1] if len(words) > 1 else ""
        found.append(Section(words[0], name, at + 1, end, tuple(line.strip() for line in written[at:end])))
    return found


def section_at(found: Sequence[Section], line: int) -> Section | None:
    """The section that a line stands in."""
    return next((section for section in found if section.first <= line <= section.last), None)


def serving(found: Sequence[Section], ports: Iterable[int]) -> set[str]:
    """The names of the frontends and listeners that take one of the ports, and of their backends.

    When none takes any, a translation came before the proxy and every section may have.
    """
    wanted = set(ports)
    fronts = [s for s in found if s.kind in ("frontend", "listen")]
    taken = [s for s in fronts if any(s.serves(port) for port in wanted)] or fronts
    named = {s.name for s in taken} | {name for s in taken for name in s.backends()}
    dynamic = any("%[" in name for name in named)
    return named | ({s.name for s in found if s.kind == "backend"} if dynamic else set())
