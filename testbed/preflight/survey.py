"""All probes of a what-if, from what is known before there is a shadow.  Pure composition."""

from __future__ import annotations

from replay.flow_priority import Rule
from testbed.flow_rules import flow_rule
from testbed.preflight.classes import class_probes
from testbed.preflight.opened import exposures
from testbed.preflight.places import places
from testbed.preflight.probe import Survey
from testbed.prepare import Case


def surveyed(case: Case) -> Survey:
    """The classes of the case's flows, and the accesses that its change may open."""
    after = {node: dict(files) for node, files in case.configs.items()}
    for node, file in case.change.before:
        after.get(node, {}).pop(file, None)
    for (node, file), content in case.change.after.items():
        after.setdefault(node, {})[file] = content
    rules: list[Rule] = [flow_rule(rule) for rule in case.policy.classes]
    here = places(case.lab.topology, after, case.flows)
    probes, left_out = exposures(case.change, case.configs, after, here, case.flows, rules, case.expectations.intents)
    return Survey(tuple(class_probes(case.flows, case.schedule)), probes, left_out)
