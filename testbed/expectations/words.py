"""Declared changes in words, as they are shown to people.  Pure."""

from __future__ import annotations

from analysis.kpi import KPIS, Direction, Kpi, Tolerance
from analysis.words import quantity
from testbed.expectations.model import Intent, Match, Service, Waiver

FATE_WORDS = {"accepted": "permitted", "unanswered": "timed out"}
PROTOCOL_WORDS: dict[tuple[int, ...], str] = {(6,): "tcp", (17,): "udp"}


def declared(intent: Intent) -> str:
    """ "tcp/8443 to 10.1.0.0/24: denied → permitted, via r3, response time at most +20 %"."""
    said = []
    if intent.becomes is not None:
        before, after = intent.becomes
        said.append(f"{before.value} → {after.value}" if before is not None else f"becomes {after.value}")
    said += [f"via {' and '.join(intent.via)}"] if intent.via else []
    said += [f"not via {' or '.join(intent.not_via)}"] if intent.not_via else []
    said += [f"to {' or '.join(intent.backend)}"] if intent.backend else []
    said += [f"translated to {intent.translated_to}"] if intent.translated_to is not None else []
    said += [f"{KPIS[kpi].label} {bound(KPIS[kpi], allowed)}" for kpi, allowed in intent.bounds.items()]
    return f"{meant(intent.match)}: {', '.join(said)}"


def meant(match: Match) -> str:
    """ "tcp/443, tcp/8443 from 198.51.100.0/24 to 10.1.0.11 of class web"."""
    parts = [", ".join(map(_service, match.services))] if match.services else []
    parts += [f"from {', '.join(map(str, match.source))}"] if match.source else []
    parts += [f"to {', '.join(map(str, match.destination))}"] if match.destination else []
    parts += [f"of class {', '.join(match.classes)}"] if match.classes else []
    parts += [f"of priority {', '.join(match.priorities)}"] if match.priorities else []
    parts += [f"labelled {match.label}"] if match.label else []
    parts += [f"of {match.application}"] if match.application else []
    parts += ["at either end of the tag"] if match.ends else []
    return " ".join(parts) or "all flows"


def wanted_traffic(match: Match) -> str:
    """What a capture would have to hold so that an expectation is tested."""
    lacking = [] if match.services else ["a service"]
    lacking += [] if match.destination else ["a destination"]
    probed = f" (or name {' and '.join(lacking)}, so that it can be probed)" if lacking else ""
    return f"a captured flow {meant(match)}{probed}"


def bound(kpi: Kpi, allowed: Tolerance) -> str:
    """ "at most +20 % or +2 ms", "at most −20 %" of what is better when larger."""
    sign = "+" if kpi.direction is Direction.LOWER else "−"
    parts = [f"{sign}{allowed.relative * 100:g} %"] if allowed.relative or not allowed.absolute else []
    parts += [f"{sign}{quantity(allowed.absolute, kpi.unit)}"] if allowed.absolute else []
    return f"at most {' or '.join(parts)}"


def pattern(waiver: Waiver) -> str:
    """ "kpi response_ns, class web"."""
    return ", ".join(f"{name} {glob}" for name, glob in waiver.patterns.items())


def _service(service: Service) -> str:
    name = PROTOCOL_WORDS.get(service.protocols, "icmp")
    if service.ports is None:
        return name
    first, last = service.ports
    return f"{name}/{first}" if first == last else f"{name}/{first}-{last}"
