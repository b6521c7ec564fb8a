"""Sets as suspects: addresses and ports that a change took from a set, or gave to it, by the rules that name the set.

Knows nftables' sets, maps and definitions and ipset's files; what a rule counted is `rules`' to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network, summarize_address_range

from testbed.attribution.ledger import number
from testbed.attribution.match import matches
from testbed.attribution.rules import Hit, told_of, user_rules
from testbed.attribution.scene import Scene
from testbed.attribution.suspect import Ground, Suspect
from testbed.change.model import Line
from testbed.devices import nft_text
from topologies.model import IpNetwork

IPSET = "ipset.rules"
MOST_TOLD = 4
_BLOCK = re.compile(r"\b(?:set|map)\s+([\w.-]+)\s*\{")
_DEFINED = re.compile(r"^\s*define\s+([\w.-]+)\s*=")
_WORDS = re.compile(r"[^\s,{}=;]+")


@dataclass(frozen=True, slots=True)
class Edited:
    """A set that a change edits on a node: its lines, and the members that went and came."""

    name: str
    lines: tuple[Line, ...]
    gone: frozenset[str]
    come: frozenset[str]

    @property
    def line(self) -> Line:
        """The line to name: what it has become, or what went."""
        return next((line for line in self.lines if line.sign == "+"), self.lines[0])

    @property
    def sentence(self) -> str:
        """What became of it."""
        told = [f"{verb} {_some(who)}" for verb, who in (("lost", self.gone), ("got", self.come)) if who]
        return f"set {self.name} {' and '.join(told) or 'was rewritten'}"


def suspects(scene: Scene, flows: Sequence[str]) -> list[Suspect]:
    """Every edited set on the flows' way that a rule with another count than before names."""
    found = []
    for place, node in enumerate(scene.nodes(flows)):
        for one in edited_sets(scene, node):
            for file, hit in user_rules(scene, node):
                if _names(hit.rule.text, one.name):
                    suspect = _suspect(scene, one, file, hit, flows, place)
                    found += [suspect] if suspect is not None else []
    return found


def edited_sets(scene: Scene, node: str) -> list[Edited]:
    """The sets of a node that the change's lines stand in."""
    own = [line for line in scene.change.lines if line.node == node and line.file.startswith(f"configs/{node}/")]
    by_name: dict[str, list[Line]] = {}
    homes: dict[tuple[str, str], Mapping[int, str]] = {}
    for line in own:
        file = line.file.removeprefix(f"configs/{node}/")
        if file != IPSET and not file.startswith("files/") and file != nft_text.FILE:
            continue
        if (file, line.sign) not in homes:
            texts = scene.after if line.sign == "+" else scene.before
            homes[file, line.sign] = set_of_lines(texts.get((node, file), ""), ipset=file == IPSET)
        name = homes[file, line.sign].get(line.line)
        if name:
            by_name.setdefault(name, []).append(line)
    return [_edited(name, lines) for name, lines in by_name.items()]


def set_of_lines(text: str, *, ipset: bool = False) -> dict[int, str]:
    """The set that each line is about, by the line's number from 1; any text at all gives some, never an error."""
    found: dict[int, str] = {}
    if ipset:
        words = (line.split() for line in text.splitlines())
        named = (
            (at, w[1]) for at, w in enumerate(words, start=1) if len(w) > 1 and w[0] in ("create", "add", "-N", "-A")
        )
        return dict(named)
    inside, depth = "", 0
    for at, line in enumerate(text.splitlines(), start=1):
        bare = line.split("#", 1)[0]
        opened = _BLOCK.search(bare) or _DEFINED.match(bare)
        if not inside and opened:
            inside, depth = opened[1], 0
        if inside:
            found[at] = inside
            depth += bare.count("{") - bare.count("}")
            inside = inside if depth > 0 else ""
    return found


def _edited(name: str, lines: Sequence[Line]) -> Edited:
    members = {
        sign: frozenset(word for line in lines if line.sign == sign for word in _members(line.text)) for sign in "+-"
    }
    return Edited(name, tuple(lines), members["-"] - members["+"], members["+"] - members["-"])


def _members(text: str) -> Iterator[str]:
    """Words that are addresses, networks, ranges or ports."""
    for word in _WORDS.findall(text):
        if word.isdecimal() or _networks(word):
            yield word


def _networks(word: str) -> list[IpNetwork]:
    low, dash, high = word.partition("-")
    try:
        if dash:
            return list(summarize_address_range(ip_address(low), ip_address(high)))
        return [ip_network(word, strict=False)] if ("." in word or ":" in word) else []
    except (ValueError, TypeError):
        return []


def _names(text: str, name: str) -> bool:
    return bool(re.search(rf"(?:@|\$|--match-set ){re.escape(name)}(?![\w.-])", text))


def _suspect(scene: Scene, one: Edited, file: str, hit: Hit, flows: Sequence[str], place: int) -> Suspect | None:
    node = one.line.node
    moved = frozenset(net for word in one.gone | one.come for net in _networks(word))
    explained = frozenset(
        flow
        for flow in flows
        for leg in scene.journeys[flow].legs_at(node)
        if matches(hit.rule.text, leg)
        and (not moved or any(a.version == n.version and a in n for n in moved for a in leg.sources | leg.destinations))
    )
    if not explained:
        return None
    fell, grew = hit.before.mean > hit.after.mean, hit.after.mean > hit.before.mean
    counted = hit.before.windows > 0 and hit.after.windows > 0
    ground = Ground.TOUCHED
    if counted and (grew if hit.effect == "drop" else fell or grew):
        ground = Ground.RULE_HIT if hit.effect == "drop" else Ground.RULE_GONE
    said = [
        f"{node}: {one.sentence}; {hit.object} names it ({hit.rule.text}): {number(hit.before.mean)} packets a window"
        f" before, {number(hit.after.mean)} with the change; it matches {len(explained)} of the flows",
        *told_of(scene, node, file, sorted(explained)),
    ]
    rank = (place, -abs(hit.after.mean - hit.before.mean), one.line.line)
    return Suspect(ground, node, f"set {one.name}", one.line, tuple(said), explained, rank)


def _some(members: frozenset[str]) -> str:
    told = sorted(members)
    more = f" and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return ", ".join(told[:MOST_TOLD]) + more
