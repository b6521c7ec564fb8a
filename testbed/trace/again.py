"""A run's flow sent again: the lab built anew, the journey before, the change live, the journey after, the rollback.

The composition of the trace; its reading order is the order in which it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from replay.schedule import Schedule
from replay.session import Patience, Player
from replay.tap import TapFailed
from testbed.change.apply import apply, refusals, revert
from testbed.devices.base import Device
from testbed.errors import InvalidInput, NotReady, RevertFailed, Unsupported
from testbed.placement import END_POINTS, listeners
from testbed.shadow import Shadow, built
from testbed.tls_trust import trusted
from testbed.trace.journey import Ended, Journey, Trace, TracedFlow
from testbed.trace.parted import culprits, parting
from testbed.trace.sent import Sender, capture_points
from testbed.trace.wanted import Wanted

READY_SECONDS = 120.0
SETTLE_SECONDS = 15.0

Tell = Callable[[str], None]


def traced_again(wanted: Wanted, devices: Mapping[str, Device], logs: Path, tell: Tell) -> Trace:
    """Both journeys of the flow, in the current sandbox.

    Raises InvalidInput when a node refuses the change, Unsupported where the kernel cannot capture or trace,
    NotReady, CommandFailed, and RevertFailed when the change could not be taken back.
    """
    case = wanted.case
    with ExitStack() as world:
        tell("build")
        shadow = world.enter_context(built(case.lab.topology, devices, logs, seed=wanted.seed))
        end_points = [node.name for node in case.lab.topology.nodes if node.kind in END_POINTS]
        player = world.enter_context(_player(wanted, shadow, end_points))
        try:
            taps = world.enter_context(capture_points(shadow, end_points))
        except TapFailed as failure:
            raise Unsupported(str(failure), "`testbed doctor` tells what is missing") from None
        shadow.wait_ready(READY_SECONDS, lambda reason: tell(f"waiting for {reason}"))
        for refusal in refusals(shadow, case.change):
            complaint = refusal.complaint
            found = f"what {refusal.node} refuses ({complaint.file}: {complaint.message})"
            raise InvalidInput(case.change.source, complaint.line or 1, 1, found, "a change that can be applied")
        sender = Sender(shadow, player, taps, end_points, replace(wanted.script, start_ns=0))
        tell("before the change")
        before = sender.journey()
        tell(f"change {case.change.name}")
        try:
            apply(shadow, case.change)
            _settled(shadow, tell)
            tell("after the change")
            after = sender.journey()
        finally:
            tell("rollback")
            revert(shadow, case.change)
        try:
            shadow.wait_ready(READY_SECONDS, lambda reason: tell(f"rollback: waiting for {reason}"))
        except NotReady as failure:
            raise RevertFailed(case.change.name, str(failure)) from failure
    return compared(wanted, before, after)


def compared(wanted: Wanted, before: Journey, after: Journey) -> Trace:
    """The document of two journeys."""
    case, row = wanted.case, wanted.flow
    part = parting(before, after, case.change)
    who = culprits(part, before, after, case.change, case.lab.topology, wanted.blame)
    flow = TracedFlow(
        str(row["flow_id"]),
        str(row.get("flow_class", "")),
        str(row["priority"]),
        int(str(row["protocol"])),
        str(row["source_address"]),
        int(str(row["source_port"])),
        str(row["destination_address"]),
        int(str(row["destination_port"])),
        str(row["outcome"]),
    )
    notes = tuple(_against_the_run(wanted, before, after))
    return Trace(wanted.directory.run_id, case.change.name, flow, before, after, part, who, notes)


def _against_the_run(wanted: Wanted, before: Journey, after: Journey) -> list[str]:
    """Where a flow that is alone fares otherwise than among the others in the run."""
    told = []
    for role, journey in (("baseline", before), ("treatment", after)):
        arrived = journey.end.how is Ended.DELIVERED and journey.kpis.get("completed") is not False
        if wanted.failed.get(role) and arrived:
            told.append(
                f"in the run the flow failed in every {role} window, alone it is delivered: "
                "the load of the others is part of the cause"
            )
    return told


def _settled(shadow: Shadow, tell: Tell) -> None:
    """Wait for protocols to come to rest; a change after which they do not is traced all the same."""
    try:
        shadow.wait_ready(SETTLE_SECONDS, lambda reason: tell(f"waiting for {reason}"))
    except NotReady as unsettled:
        tell(f"goes on all the same: {unsettled}")


def _player(wanted: Wanted, shadow: Shadow, end_points: list[str]) -> Player:
    case = wanted.case
    patience = Patience(
        connect_timeout_ns=int(case.policy.connect_timeout_s * 1e9),
        message_timeout_ns=int(case.policy.response_timeout_s * 1e9),
    )
    spaces = {node: fd for node, fd in shadow.namespaces().items() if node in end_points}
    script = replace(wanted.script, start_ns=0)
    only = Schedule((), case.schedule.speed, script.busy_ns, probes=(script,))
    return Player(only, spaces, listeners(case.lab, case.flows, case.configs), patience, trust=trusted(shadow))
