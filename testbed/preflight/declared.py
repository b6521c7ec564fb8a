"""Ways that somebody declared to change: tried even where no observed flow goes, so that a promise can be held to.

Pure.  Knows what was declared and the places of a network, no change and no socket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.expectations.model import Intent, Match
from testbed.placement import PROTOCOLS
from testbed.preflight.places import Places, Service
from testbed.preflight.probe import Kind
from testbed.preflight.tries import TARGETS, Sampler, Try, leaves, within
from topologies.model import IpAddress


def declared_tries(intents: Sequence[Intent], here: Places, sampler: Sampler) -> Iterator[Try]:
    """From every side that an intent names to the services that it names; without either, to what is known of it.

    An intent that names neither a service nor a destination is about observed flows only.
    """
    for intent in intents:
        match = intent.match
        if match.services is None and match.destination is None:
            continue
        services = list(dict.fromkeys(_services(match, here)))
        for service, zone in sampler.ways(services, here.zones):
            said = here.source(zone, match.source or ())
            if said is None or said.version != service[0].version or not leaves(here, zone, service[0]):
                continue
            if match.ends is None or within(said, match.ends) or within(service[0], match.ends):
                yield Try(Kind.DECLARED, zone, said, service)


def _services(match: Match, here: Places) -> Iterator[Service]:
    for to in _targets(match, here):
        for protocol in PROTOCOLS.values():
            known = here.ports(to, protocol)
            for port in dict.fromkeys(_ports(match, protocol, known)):
                yield to, protocol, port


def _targets(match: Match, here: Places) -> list[IpAddress]:
    """Every known end in the networks that are named, or somebody in them; of no network all that has services."""
    if match.destination is None:
        return list(dict.fromkeys(to for to, _, _ in here.services))
    found: list[IpAddress] = []
    for network in match.destination:
        if network.num_addresses == 1:
            found.append(network[0])
            continue
        ends = [to for to, _ in here.addresses(TARGETS)] + [to for to, _, _ in here.services]
        inside = [to for to in ends if within(to, [network])]
        someone = here.inside(network)
        found += inside or ([] if someone is None else [someone])
    return list(dict.fromkeys(found))


def _ports(match: Match, protocol: int, known: Sequence[int]) -> Iterator[int]:
    """What is named; of a range its ends and what is known in it; without a name what is known."""
    if match.services is None:
        yield from known
        return
    for service in match.services:
        if protocol not in service.protocols:
            continue
        if service.ports is None:
            yield from known
            continue
        first, last = service.ports
        yield from (port for port in (*known, first, last) if first <= port <= last)
