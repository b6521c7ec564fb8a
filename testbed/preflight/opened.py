"""Probes for what a change may let in: made of its own rules, of refused flows, and of every known service.

Pure.  No observed flow uses an access that is not there yet, so somebody has to think of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from replay.flow_priority import OTHER_CLASS, classified
from replay.flow_priority import Rule as ClassRule
from replay.schedule import FORWARD, TCP, UDP, FlowScript, Message
from testbed.attribution.match import address
from testbed.change.model import Change
from testbed.devices.base import Configs
from testbed.devices.packet_filter import Rule
from testbed.expectations.model import Intent
from testbed.placement import END_POINTS
from testbed.preflight.classes import APART_NS
from testbed.preflight.declared import declared_tries
from testbed.preflight.places import Places, Service
from testbed.preflight.probe import Kind, Probe, Stand
from testbed.preflight.tries import Sampler, Try, leaves, rules_by_line, spread, takes, tries_of_line, within
from topologies.model import IpAddress

MOST_A_LINE, FEWEST_A_LINE = 48, 4
MOST_OF_CHANGE = 480
MOST_SERVICES = 192
MOST_REFUSED = 64
MOST_DECLARED = 192
"""Probes at most of a changed line, of all of them, of known services, of refused flows, of what is declared; the rest
is counted."""

LOOKED_AT = 8
"""Times as many ways are looked at before some are chosen: not every one leads through the network."""

FIRST_PORT = 50_000


def exposures(
    change: Change,
    before: Mapping[str, Configs],
    after: Mapping[str, Configs],
    here: Places,
    flows: pd.DataFrame,
    rules: Sequence[ClassRule],
    intents: Sequence[Intent] = (),
) -> tuple[tuple[Probe, ...], int]:
    """The probes, each way once, and how many were left out by the limits.

    `before` and `after` are all nodes' files, `rules` the policy's classes, `intents` what is declared to change.
    """
    found: dict[tuple[str, Service], Try] = {}
    by_line = list(_by_line(change, before, after, here))
    most_a_line = max(FEWEST_A_LINE, min(MOST_A_LINE, MOST_OF_CHANGE // max(len(by_line), 1)))
    sampler, declared = Sampler(LOOKED_AT * MOST_SERVICES), Sampler(LOOKED_AT * MOST_DECLARED)
    left_out = sum(line_sampler.left_out for line_sampler, _ in by_line)
    for most, tries in (
        *((most_a_line, tries) for _, tries in by_line),
        (MOST_DECLARED, list(declared_tries(intents, here, declared))),
        (MOST_REFUSED, list(_refused(here, flows))),
        (MOST_SERVICES, list(_services(here, sampler))),
    ):
        fresh = {key: t for t in tries if (key := (str(t.source), t.service)) not in found}
        every = list(fresh.values())
        kept = [every[place] for place in spread(len(every), most)]
        left_out += len(fresh) - len(kept)
        found.update({(str(t.source), t.service): t for t in kept})
    left_out += sampler.left_out + declared.left_out
    refused = {(str(t.source), t.service): t.expected for t in _refused(here, flows)}
    told = [replace(t, expected=refused.get(key, t.expected)) for key, t in found.items()]
    return _probes(told, here, rules), left_out


def _by_line(
    change: Change, before: Mapping[str, Configs], after: Mapping[str, Configs], here: Places
) -> Iterator[tuple[Sampler, list[Try]]]:
    """The ways of each changed line that has any; of a line that became another one the new form comes first."""
    rules: dict[tuple[str, str], dict[tuple[str, int], Rule]] = {}
    for line in sorted(change.lines, key=lambda line: line.sign == "-"):
        files = (after if line.sign == "+" else before).get(line.node, {})
        side = (line.node, line.sign)
        if side not in rules:
            rules[side] = rules_by_line(files)
        sampler = Sampler(LOOKED_AT * MOST_A_LINE)
        tries = list(tries_of_line(line, files, rules[side], here, sampler))
        if tries:
            yield sampler, tries


def _refused(here: Places, flows: pd.DataFrame) -> Iterator[Try]:
    """The very flows that production did not let through, once a source, target and port."""
    refused = flows[flows["outcome"] != "accepted"]
    columns = ["source_address", "destination_address", "protocol", "destination_port", "outcome"]
    for source, to, protocol, port, outcome in refused[columns].drop_duplicates(columns[:-1]).to_numpy().tolist():
        said, end = address(str(source)), address(str(to))
        owner = here.owner(said) if said is not None else None
        if said is None or end is None or owner is None or owner.kind not in END_POINTS or not port:
            continue
        if protocol in (TCP, UDP):
            zone = next((z for z in here.zones if z.node == owner.name and within(said, [z.network])), None)
            if zone is not None:
                yield Try(Kind.REFUSED, zone, said, (end, int(protocol), int(port)), expected=str(outcome))


def _services(here: Places, sampler: Sampler) -> Iterator[Try]:
    """Every known service from every side."""
    for service, zone in sampler.ways(here.services, here.zones):
        said = here.source(zone, ())
        if said is not None and said.version == service[0].version and leaves(here, zone, service[0]):
            yield Try(Kind.SERVICE, zone, said, service)


def _ends(here: Places, service: Service) -> list[tuple[IpAddress, int]]:
    """Where a probe may come out: at its target, or where a translation sends it."""
    to, protocol, port = service
    taking = [one for one in here.translations if one.protocol == protocol and takes(one, to, port)]
    return [(to, port), *((one.to, one.to_port or port) for one in taking)]


def _stands(here: Places, service: Service) -> tuple[Stand, ...]:
    """The end points' places among them where nothing of the node's own may be listening."""
    found = []
    for end, port in _ends(here, service):
        owner = here.owner(end)
        if owner is not None and owner.kind in END_POINTS and not owner.programs:
            found.append((owner.name, service[1], port))
    return tuple(dict.fromkeys(found))


def _probes(tries: Sequence[Try], here: Places, rules: Sequence[ClassRule]) -> tuple[Probe, ...]:
    if not tries:
        return ()
    table = pd.DataFrame(
        {
            "protocol": [t.service[1] for t in tries],
            "destination_port": [t.service[2] for t in tries],
            "source_address": pd.Series([str(t.source) for t in tries], dtype="str"),
            "destination_address": pd.Series([str(t.service[0]) for t in tries], dtype="str"),
            "application": pd.Series([""] * len(tries), dtype="str"),
            "label": pd.Series([""] * len(tries), dtype="str"),
        }
    )
    told = classified(table, rules)
    # what stands behind a translation has the class of what it is translated to, where its own address has none
    ends = [_ends(here, t.service)[-1] for t in tries]
    inner = table.assign(
        destination_address=pd.Series([str(end) for end, _ in ends], dtype="str"),
        destination_port=[port for _, port in ends],
    )
    known, behind = told["flow_class"] != OTHER_CLASS, classified(inner, rules)
    told = told.assign(**{name: told[name].where(known, behind[name]) for name in ("flow_class", "priority")})
    named = zip(tries, told["flow_class"].tolist(), told["priority"].tolist(), strict=True)
    return tuple(_probe(one, name, priority, number, here) for number, (one, name, priority) in enumerate(named))


def _probe(one: Try, name: str, priority: str, number: int, here: Places) -> Probe:
    to, protocol, port = one.service
    probe_id = f"exposure{number}"
    said = (Message(FORWARD, 0, f"testbed {probe_id}.".encode()),) if protocol == UDP else ()
    script = FlowScript(
        flow_id=probe_id,
        protocol=protocol,
        source_node=one.zone.node,
        source=(str(one.source), FIRST_PORT + number),
        target=(str(to), port),
        start_ns=number * APART_NS // 2,
        messages=said,
        close="rst_forward" if protocol == TCP else "none",
        outcome="unanswered",
        application="",
        priority=priority,
    )
    stands = _stands(here, one.service)
    return Probe(one.kind, script, one.zone.name, name, priority, 0, one.expected, one.origin, stands)
