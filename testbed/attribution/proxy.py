"""A proxy's configuration as suspect: the changed lines of the sections that serve these flows, and what was counted.

Knows HAProxy's statistics, no packet filter and no route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from testbed.attribution.edits import successor
from testbed.attribution.haproxy import HEADS, Section, section_at, sections, serving
from testbed.attribution.ledger import number, rose
from testbed.attribution.scene import Scene
from testbed.attribution.suspect import Ground, Suspect, where
from testbed.change.model import Line

FILE = "haproxy.cfg"
ERRORS = ("econ", "eresp", "wretr", "wredis", "hrsp_5xx", "hrsp_4xx", "dreq", "ereq", "srv_abrt", "cli_abrt")
LIMITS = re.compile(r"\b(maxconn|fullconn|maxqueue|rate-limit|maxconnrate|minconn|nbthread)\b")
CHECKS = re.compile(r"\b(check|httpchk|http-check|tcp-check|inter|fall|rise|disabled|port|ssl|send-proxy|verify)\b")
CHOICE = re.compile(r"^(use_backend|default_backend|acl|balance|use-server|server|stick|hash-type|cookie)\b")
DENIES = re.compile(r"\b(deny|reject|tarpit|return|redirect)\b")


@dataclass(frozen=True, slots=True)
class Sign:
    """Something a proxy's statistics show: `kind` says which configuration lines could cause it."""

    kind: str
    proxy: str
    server: str
    sentence: str


def suspects(scene: Scene, flows: Sequence[str]) -> list[Suspect]:
    """The changed lines of every proxy on these flows' way."""
    found: list[Suspect] = []
    for place, node in enumerate(scene.nodes(flows)):
        lines = scene.lines(node, FILE)
        passing = scene.passing(flows, node)
        if lines and passing:
            signs, served = _signs(scene, node), _served(scene, node, passing)
            found += [s for line in lines if (s := _suspect(scene, line, served, signs, place)) is not None]
    return found


def _suspect(
    scene: Scene, line: Line, served: Mapping[str, set[str]], signs: Sequence[Sign], place: int
) -> Suspect | None:
    texts = scene.after if line.sign == "+" else scene.before
    found = sections(texts.get((line.node, FILE), ""))
    section = section_at(found, line.line)
    if section is None or (line.sign == "-" and successor(line, scene.edits) is not None):
        return None
    common = section.kind in ("global", "defaults")
    flows = frozenset(served) if common else frozenset(f for f, names in served.items() if section.name in names)
    if not flows:
        return None
    names = set[str]().union(*(served[f] for f in flows)) if common else {section.name}
    text = line.text.strip()
    near = [sign for sign in signs if sign.proxy in names]
    fitting = [sign for sign in near if _fits(text, sign)]
    others = [sign for sign in near if sign not in fitting]
    siblings = [o for o in scene.lines(line.node, FILE) if o != line and o.sign == line.sign]
    ground = Ground.PROXY_SEEN if fitting else Ground.PLAUSIBLE if near else Ground.TOUCHED
    said = [sign.sentence for sign in (*fitting, *others)]
    said += [f"also changed: {where(other)}" for other in siblings[:5]]
    if not near:
        said.insert(0, f"{line.node}: no statistic of {section.label} changed; its section serves these flows")
    head = text.split()[:1] and text.split()[0] in HEADS
    rank = (place, common, bool(head), -len(fitting), line.line)
    return Suspect(ground, line.node, _label(section, text), line, tuple(said), flows, rank)


def _label(section: Section, text: str) -> str:
    words = text.split()
    return f"{section.label} server {words[1]}" if words[0] == "server" and len(words) > 1 else section.label


def _served(scene: Scene, node: str, flows: Iterable[str]) -> dict[str, set[str]]:
    """The sections that serve each flow, before or after the change."""
    written = [sections(texts.get((node, FILE), "")) for texts in (scene.before, scene.after)]
    doors = {f: scene.journeys[f].doors or frozenset() for f in flows}
    by_door = {ports: serving(written[0], ports) | serving(written[1], ports) for ports in set(doors.values())}
    return {f: by_door[doors[f]] for f in flows}


def _fits(text: str, sign: Sign) -> bool:
    """Whether a line of this text could cause what the sign shows."""
    words = text.split()
    if words[0] == "server" and len(words) > 1:
        if sign.kind in ("gone", "down"):
            return sign.server == words[1]
        return sign.kind in ("error", "choice") or (sign.kind == "queue" and _may_queue(text, sign))
    causes = {
        "gone": CHOICE.search(text) or words[0] in HEADS or words[0] == "bind",
        "down": CHECKS.search(text),
        "queue": LIMITS.search(text),
        "error": words[0] in ("timeout", "mode", "option", "retries") or LIMITS.search(text) or DENIES.search(text),
        "choice": CHOICE.search(text) or DENIES.search(text),
    }
    return bool(causes[sign.kind])


def _may_queue(text: str, sign: Sign) -> bool:
    """A server line queues by its own limit, or by being one of fewer."""
    return bool(LIMITS.search(text)) and sign.server in ("", "BACKEND", text.split()[1])


def _signs(scene: Scene, node: str) -> list[Sign]:
    found: list[Sign] = []
    for name, before, after in scene.ledger.objects(node, "proxy", "status"):
        proxy, _, server = name.partition("/")
        sessions = scene.ledger.read(node, "proxy", name, "stot")
        if before.windows and not after.windows:
            served = f" (it had {number(sessions[0].mean)} sessions a window)"
            found.append(Sign("gone", proxy, server, f"{node}: {name} is gone{served}"))
        elif before.windows and before.state != after.state and not after.state.startswith(("UP", "OPEN")):
            found.append(Sign("down", proxy, server, f"{node}: {name} went from {before.state} to {after.state}"))
        elif after.windows and not before.windows:
            sentence = f"{node}: {name} is new, {number(sessions[1].mean)} sessions a window"
            found.append(Sign("choice", proxy, server, sentence))
        else:
            found += _numbers(scene, node, proxy, server)
    return found


def _numbers(scene: Scene, node: str, proxy: str, server: str) -> list[Sign]:
    name = f"{proxy}/{server}"
    found = []
    before, after = scene.ledger.read(node, "proxy", name, "qmax")
    if rose(before, after):
        words = f"{node}: longest queue of {name} {number(before.mean)} → {number(after.mean)} flows"
        found.append(Sign("queue", proxy, server, words))
    limit_before, limit = scene.ledger.read(node, "proxy", name, "slim")
    peak_before, peak = scene.ledger.read(node, "proxy", name, "smax")
    full_before = limit_before.mean > 0 and peak_before.largest >= limit_before.mean
    if limit.mean > 0 and peak.largest >= limit.mean and not full_before:
        words = f"{node}: {name} reached its limit of {number(limit.mean)} flows at once"
        was = (
            f" (before: {number(peak_before.largest)} of {number(limit_before.mean)})" if limit_before.mean > 0 else ""
        )
        found.append(Sign("queue", proxy, server, words + was))
    for metric in ERRORS:
        before, after = scene.ledger.read(node, "proxy", name, metric)
        if rose(before, after):
            words = f"{node}: {metric} of {name} {number(before.mean)} → {number(after.mean)} a window"
            found.append(Sign("error", proxy, server, words))
    before, after = scene.ledger.read(node, "proxy", name, "stot")
    if before.mean >= 3 and (after.mean <= 0.5 * before.mean or after.mean >= 2 * before.mean):
        words = f"{node}: {name} had {number(before.mean)} sessions a window, now {number(after.mean)}"
        found.append(Sign("choice", proxy, server, words))
    return found
