"""Packet filter rules as suspects: what began to drop, what stopped to accept, and what lay in wait.

Knows iptables' and nftables' files and counters, no routes and no proxies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.attribution.edits import successor
from testbed.attribution.ledger import NOTHING, Tally, number, rose
from testbed.attribution.links import path_mtu_errors
from testbed.attribution.match import (
    DROPS,
    canonical,
    matches,
    meets_routing,
    names_icmp_type,
    stops_path_mtu,
    target,
)
from testbed.attribution.scene import Files, Scene
from testbed.attribution.suspect import Ground, Suspect, where
from testbed.attribution.symptoms import parted
from testbed.change.model import Line
from testbed.devices import nft_text
from testbed.devices.packet_filter import FAMILIES, Rule, parse_rules

OWN_CHAINS = frozenset({"input", "output"})
"""Chains, as they are usually named, that see what a node itself sends and gets."""

LIMITS = re.compile(r"-m (connlimit|hashlimit|limit|recent|quota)\b|\b(ct count|limit rate|quota)\b")
LIMITED = "the rule is a limit on how many or how fast"
BLACK_HOLE = "a path MTU black hole: it drops the ICMP errors that tell a sender of a smaller path MTU"
VERSIONS = {"iptables.rules": (4,), "ip6tables.rules": (6,), nft_text.FILE: (4, 6)}
PROGRAMS = {**FAMILIES, nft_text.FILE: "nft"}
NFT_FAMILIES = {"ip": 4, "ip6": 6}
TRANSLATES = frozenset(
    {"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "TPROXY", "NOTRACK", "CT", "TCPMSS", "MARK"}
)
VERDICTS = DROPS | {"ACCEPT", "RETURN", "LOG", "NFLOG", ""}
GAINS = {
    "drop": Ground.RULE_HIT,
    "translate": Ground.ROUTE_MOVED,
    "accept": Ground.TOUCHED,
    "other": Ground.TOUCHED,
}
LOSSES = {
    "accept": Ground.RULE_GONE,
    "translate": Ground.RULE_GONE,
    "drop": Ground.TOUCHED,
    "other": Ground.TOUCHED,
}


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule with what it counted in a window before and after, whatever its place was."""

    rule: Rule
    effect: str
    before: Tally
    after: Tally

    @property
    def object(self) -> str:
        """`filter FORWARD rule 7`, or `filter FORWARD policy`."""
        place = f"rule {self.rule.index}" if self.rule.index else "policy"
        return f"{self.rule.table} {self.rule.chain} {place}"


def suspects(scene: Scene, flows: Sequence[str]) -> list[Suspect]:
    """Every rule of every node on the flows' way that may have hurt or freed them."""
    found: list[Suspect] = []
    for place, node in enumerate(scene.nodes(flows)):
        for file, versions in VERSIONS.items():
            own = list(dict.fromkeys(f for version in versions for f in scene.seen_as(flows, node, version)))
            if own:
                for part in _parts(scene, node, file):
                    found += _of_file(scene, node, file, part, own, place)
                found += _by_command(scene, node, file, own, place)
    return found


def _parts(scene: Scene, node: str, file: str) -> list[str]:
    """The file and what it includes, before the change or after it."""
    if file != nft_text.FILE:
        return [file]
    texts = (_texts(files, node) for files in (scene.before, scene.after))
    return list(dict.fromkeys([file, *(written.file for own in texts for written in nft_text.written_rules(own))]))


def _texts(files: Files, node: str) -> dict[str, str]:
    return {name: text for (owner, name), text in files.items() if owner == node}


def _of_file(scene: Scene, node: str, file: str, part: str, flows: list[str], place: int) -> list[Suspect]:
    """Suspects in one part of a configuration; the counters bear the name of the whole."""
    old, new = (_parsed(file, part, _texts(files, node)) for files in (scene.before, scene.after))
    gone, stay = _counted(scene, node, file, old, new)
    rising = [hit for hit in stay if hit.effect == "drop" and rose(hit.before, hit.after)]
    falling = [hit for hit in stay if hit.effect == "drop" and rose(hit.after, hit.before)]
    changed = {(line.sign, line.line): line for line in scene.lines(node, part)}
    found, takers = [], list[Hit]()
    for hit in stay:
        line = changed.get(("+", hit.rule.line))
        if (line is None and hit not in rising) or (hit.effect == "accept" and not hit.rule.index):
            continue
        explained = _hurt(scene, node, hit, flows, version_of(file, hit.rule))
        if not explained:
            continue
        takers += [hit] * (hit in rising)
        if line is not None:
            freed = [_told(node, other) for other in falling if hit.effect == "accept"]
            found.append(_gained(scene, hit, line, explained, place, freed))
        else:
            found.append(_uncovered(scene, node, part, hit, explained, place))
    for hit in gone:
        line = changed.get(("-", hit.rule.line))
        if line is None:
            continue
        explained = _hurt(scene, node, hit, flows, version_of(file, hit.rule))
        if explained:
            found.append(_lost(scene, hit, line, explained, place, takers))
        elif hit.effect == "accept" and stops_path_mtu(hit.rule.text):
            found.append(replace(_lost(scene, hit, line, frozenset(flows), place, takers), ground=Ground.PLAUSIBLE))
    return found


def user_rules(scene: Scene, node: str) -> Iterator[tuple[str, Hit]]:
    """(file, rule) of every rule that a node has with the change in force, with its counts."""
    for file in VERSIONS:
        for part in _parts(scene, node, file):
            old, new = (_parsed(file, part, _texts(files, node)) for files in (scene.before, scene.after))
            for hit in _counted(scene, node, file, old, new)[1]:
                yield file, hit


def told_of(scene: Scene, node: str, file: str, flows: Sequence[str]) -> list[str]:
    """What of a node's packet filter drops more of these flows than before, a sentence each."""
    return [
        _told(node, hit)
        for own, hit in user_rules(scene, node)
        if own == file and hit.effect == "drop" and rose(hit.before, hit.after)
        if _hurt(scene, node, hit, flows, version_of(file, hit.rule))
    ]


def _counted(
    scene: Scene, node: str, file: str, old: Sequence[Rule], new: Sequence[Rule]
) -> tuple[list[Hit], list[Hit]]:
    """Rules that are gone and rules that are there, each with the counts of its own text before and after."""
    effects = _effects(old), _effects(new)
    once = {_identity(rule): rule for rule in reversed(old)}
    now = {_identity(rule): rule for rule in reversed(new)}

    def tally(rule: Rule | None, *, late: bool) -> Tally:
        return NOTHING if rule is None else _tally(scene, node, file, rule, late=late)

    gone = [
        Hit(rule, effects[0][rule.key], tally(rule, late=False), NOTHING) for rule in old if _identity(rule) not in now
    ]
    # a rule that only moved keeps its text: its old place tells what it counted before
    stay = [
        Hit(rule, effects[1][rule.key], tally(once.get(_identity(rule)), late=False), tally(rule, late=True))
        for rule in new
    ]
    return gone, stay


def _tally(scene: Scene, node: str, file: str, rule: Rule, *, late: bool) -> Tally:
    """The rule's counter at its own place, or at the place where the kernel has its text."""
    own = scene.ledger.read(node, "rule", f"{file}:{rule.key}", "packets")[late]
    wanted = canonical(rule.text)
    if own.windows and canonical(own.state) == wanted:
        return own
    chain = f"{file}:{rule.table}/{rule.chain}/"
    for name, early, after in scene.ledger.objects(node, "rule", "packets"):
        there = after if late else early
        if name.startswith(chain) and there.windows and canonical(there.state) == wanted:
            return there
    return own


def _identity(rule: Rule) -> tuple[object, ...]:
    return rule.table, rule.chain, rule.index == 0, canonical(rule.text)


def _effects(rules: Sequence[Rule]) -> dict[str, str]:
    """What each rule does by its key, through the user chains that it jumps to."""
    chains: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        chains.setdefault((rule.table, rule.chain), []).append(rule)
    return {rule.key: _effect(rule, chains, frozenset()) for rule in rules}


def _effect(rule: Rule, chains: Mapping[tuple[str, str], list[Rule]], seen: frozenset[str]) -> str:
    to = target(rule.text)
    if to in DROPS:
        return "drop"
    if to in TRANSLATES:
        return "translate"
    if to in VERDICTS or to in seen:
        return "accept" if to == "ACCEPT" else "other"
    inside = [_effect(r, chains, seen | {to}) for r in chains.get((rule.table, to), ()) if r.index]
    return inside[-1] if inside else "other"


def _parsed(file: str, part: str, texts: Mapping[str, str]) -> list[Rule]:
    """The rules that stand in one part of a configuration, whichever its format."""
    if file != nft_text.FILE:
        return parse_rules(texts.get(file, ""))
    return [written.rule for written in nft_text.written_rules(texts) if written.file == part]


def version_of(file: str, rule: Rule) -> int | None:
    """The IP version that a rule sees; None for both, as in nftables' family inet."""
    versions = VERSIONS[file]
    return versions[0] if len(versions) == 1 else NFT_FAMILIES.get(rule.table.split("/")[0])


def _hurt(scene: Scene, node: str, hit: Hit, flows: Sequence[str], version: int | None) -> frozenset[str]:
    """The flows that the rule can touch: by its match, by keeping path MTU errors from senders or routers apart."""
    if hit.effect == "drop" and stops_path_mtu(hit.rule.text):
        return frozenset(flows)
    if hit.rule.chain.lower() in OWN_CHAINS and meets_routing(hit.rule.text, version or 4) and parted(scene, node):
        return frozenset(flows)
    return frozenset(
        f for f in flows if any(matches(hit.rule.text, leg) for leg in scene.journeys[f].legs_at(node, version))
    )


def _gained(
    scene: Scene, hit: Hit, line: Line, explained: frozenset[str], place: int, freed: Sequence[str] = ()
) -> Suspect:
    counted = hit.after.windows > 0
    grown = rose(hit.before, hit.after) or (hit.after.mean > 0 and not hit.before.windows)
    refused = 2 * sum(scene.journeys[f].refused for f in explained) > len(explained)
    ground = GAINS["drop" if refused and hit.effect == "accept" else hit.effect]
    said = [
        f"{line.node}: {hit.object} matched {number(hit.after.mean)} packets a window after the change,"
        f" {number(hit.before.mean)} before; it matches {len(explained)} of the flows"
    ]
    said += freed if refused else ()
    errors: list[str] = []
    if hit.effect == "drop" and stops_path_mtu(hit.rule.text):
        said.append(BLACK_HOLE)
        # what no counter saw must at least have happened on the rule's own node
        errors = path_mtu_errors(scene, scene.nodes(sorted(explained)) if counted else [line.node])
        said += errors
        # a rule without a type drops pings too, and its packets may have been those
        if not (errors or names_icmp_type(hit.rule.text) or scene.change.links):
            ground = Ground.PLAUSIBLE
    said += [LIMITED] if LIMITS.search(hit.rule.text) else []
    if not counted:
        ground = ground if errors else min(ground, Ground.PLAUSIBLE)
        said[0] = (
            f"{line.node}: {hit.object} is new and matches {len(explained)} of the flows; its counter was not read"
        )
    elif not grown:
        ground = Ground.ONLY_NEAR
        said = [f"{line.node}: {hit.object} matched no more packets than before ({number(hit.after.mean)} a window)"]
        if hit.effect in ("accept", "translate") and rose(hit.after, hit.before):
            ground = Ground.RULE_GONE
            said = [
                f"{line.node}: {hit.object} matched {number(hit.before.mean)} packets a window in its old place,"
                f" {number(hit.after.mean)} in its new one"
            ]
    return Suspect(ground, line.node, hit.object, line, tuple(said), explained, (place, -hit.after.mean, line.line))


def _lost(scene: Scene, hit: Hit, line: Line, explained: frozenset[str], place: int, takers: Sequence[Hit]) -> Suspect:
    freed = hit.effect == "drop" and 2 * sum(scene.journeys[f].refused for f in explained) > len(explained)
    ground = LOSSES["accept" if freed else hit.effect]
    if hit.before.mean <= 0:
        ground = Ground.ONLY_NEAR
    elif hit.effect == "accept" and not takers:
        # nothing drops more than before: something else accepts these packets now
        ground = Ground.UNSEEN
    said = [
        f"{line.node}: {line.text.strip()} was hit by {number(hit.before.mean)} packets a window before;"
        f" it is gone, and it matches {len(explained)} of the flows"
    ]
    now = successor(line, scene.edits)
    said += [LIMITED] if LIMITS.search(f"{line.text} {'' if now is None else now.text}") else []
    if now is not None:
        said.append(f"it became {where(now)}")
    evidence = (*said, *(_told(line.node, taker) for taker in takers))
    return Suspect(
        ground, line.node, hit.object, now or line, evidence, explained, (place, -hit.before.mean, line.line)
    )


def _uncovered(scene: Scene, node: str, file: str, hit: Hit, explained: frozenset[str], place: int) -> Suspect:
    limit = (LIMITED,) if LIMITS.search(hit.rule.text) else ()
    hole = (BLACK_HOLE,) if hit.effect == "drop" and stops_path_mtu(hit.rule.text) else ()
    evidence = (_told(node, hit), *hole, *limit, "this rule is not part of the change: it lay in wait")
    return Suspect(
        Ground.LATENT,
        node,
        hit.object,
        None,
        evidence,
        explained,
        (place, -hit.after.mean, hit.rule.line),
        file=f"configs/{node}/{file}",
        number=hit.rule.line,
        text=_written(scene, node, file, hit.rule.line),
    )


def _written(scene: Scene, node: str, file: str, line: int) -> str:
    return scene.after[node, file].splitlines()[line - 1]


def _told(node: str, hit: Hit) -> str:
    return (
        f"{node}: {hit.object} ({hit.rule.text}) took {number(hit.after.mean)} packets a window after the change,"
        f" {number(hit.before.mean)} before"
    )


def _by_command(scene: Scene, node: str, file: str, flows: list[str], place: int) -> list[Suspect]:
    """Rules that only the kernel has, put there by a command of the change, which is blamed."""
    program = PROGRAMS[file]
    lines = [c for c in scene.change.lines if c.node == node and c.text.split("/")[-1].startswith(f"{program} ")]
    if not lines:
        return []
    seen = [o for o in scene.ledger.objects(node, "rule", "packets") if o[0].startswith(f"{file}:")]
    known = {canonical(before.state) for _, before, _ in seen}
    texts = _texts(scene.after, node)
    known |= {canonical(rule.text) for part in _parts(scene, node, file) for rule in _parsed(file, part, texts)}
    found = []
    for name, _, after in seen:
        if after.mean <= 0 or canonical(after.state) in known:
            continue
        table, chain, index = name.split(":", 1)[1].rsplit("/", 2)
        rule = Rule(table, chain, int(index), after.state, 0)
        hit = Hit(rule, _effect(rule, {}, frozenset()), NOTHING, after)
        explained = _hurt(scene, node, hit, flows, version_of(file, hit.rule))
        line = max(lines, key=lambda c: len(set(c.text.split()) & set(after.state.split())))
        if explained:
            found.append(_gained(scene, hit, line, explained, place))
    return found
