"""Everything that can be known before a shadow exists: lab, change, policy, flows, placement, schedule.

It starts nothing and opens no socket, so bad input is told in a second with nothing to clean up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd

from replay.flow_priority import classified
from replay.load import multiplied
from replay.packet_mode.plan import PacketPlan
from replay.packets import read_packets
from replay.sampling import Share
from replay.schedule import Schedule, schedule
from replay.tls_terminated import terminated
from testbed.background import Load
from testbed.beside_load import placed_loads
from testbed.change import Change, read_change
from testbed.devices.base import Configs, Device
from testbed.errors import InvalidInput
from testbed.expectations.file import NAME as EXPECT
from testbed.expectations.file import read_expectations
from testbed.expectations.matching import parted
from testbed.expectations.model import NONE, Expectations
from testbed.flow_rules import flow_rule
from testbed.model_file import read_model
from testbed.packet_flows import Manner, Mode, mixed
from testbed.placement import Placed, node_of, place
from testbed.placement_by_model import placed_by_model
from testbed.policy import Policy, read_policy, tagged
from testbed.tls_ends import ends_tls
from testbed.traffic import CAPTURE, read_flows
from topologies.imported import Note
from topologies.load import Lab
from topologies.located import InvalidLab
from topologies.sources import Opened, opened

CUT_SHORT = ("truncated_record", "truncated_compression")
PLACED = "files/"
"""Any node may have files put where its own path says: `files/etc/motd` is its /etc/motd."""
ORDINARY = Manner()


@dataclass(frozen=True, slots=True)
class Case:
    """A what-if, ready to be run: the change, the flows it is judged on and the plan of a window.

    `packets` is the plan of what is sent as packets, None when nothing is; `background` is beside the flows.
    `sampled` has every class's share where there was not room for all flows.
    """

    lab: Lab
    change: Change
    policy: Policy
    placed: Placed
    schedule: Schedule
    skipped: Mapping[str, int]
    configs: Mapping[str, Configs]
    packets: PacketPlan | None = None
    background: tuple[Load, ...] = ()
    manner: Manner = ORDINARY
    notes: tuple[Note, ...] = ()
    sampled: tuple[Share, ...] = ()
    expectations: Expectations = NONE

    @property
    def flows(self) -> pd.DataFrame:
        """The flows to replay, with class and priority."""
        return self.placed.flows

    @property
    def duration_ns(self) -> int:
        """How long a window's traffic lasts by its plan."""
        return max(self.schedule.duration_ns, self.packets.duration_ns if self.packets else 0)


def open_lab(source: str, work: Path, devices: Mapping[str, Device]) -> Opened:
    """A lab from wherever its user has it, every problem of it in one InvalidInput.

    What is not a lab folder is written as one into `work` first, and what it asks for in vain is noted.
    """
    try:
        found = opened(source, work, frozenset(devices))
    except InvalidLab as problem:
        raise InvalidInput.of(problem) from None
    for node in found.lab.topology.nodes:
        for file, path in node.configs.items():
            known = devices[node.kind].reads
            if file not in known and not file.startswith(PLACED):
                raise InvalidInput(
                    path, 1, 1, f"{file!r}", f"a file that a {node.kind} reads: {', '.join(sorted(known))}"
                )
    return found


def prepared(
    lab: Lab,
    change: Path,
    devices: Mapping[str, Device],
    captures: tuple[Path, ...] = (),
    policy: Path | None = None,
    speed: float | None = None,
    manner: Manner = ORDINARY,
    *,
    model: Path | None = None,
) -> Case:
    """Read and check everything; raises InvalidInput with file, line, found and expected, or InvalidLoad.

    `model` is the file of an observed flow control model that places end points which no node owns.
    """
    edit = read_change(lab, change, lambda node: devices[node.kind].reads)
    written = policy or lab.policy
    rules = read_policy(written)
    rules = rules if written is None else tagged(rules, written, lab.topology)
    files = captures or lab.captures
    if not files:
        raise InvalidInput(lab.folder / "traffic", 1, 1, "no capture", "at least one traffic/*.pcap, or --capture FILE")
    traffic = read_flows(files)
    if sum(traffic.skipped.get(reason, 0) for reason in CUT_SHORT):
        _refuse_truncated(files)
    if traffic.kind != CAPTURE and manner.mode is Mode.PACKET:
        raise InvalidInput(
            files[0], 1, 1, f"a {traffic.kind} in the mode {manner.mode}", "a capture, which has packets"
        )
    notes: tuple[Note, ...] = ()
    if model is not None:
        lab, notes = placed_by_model(lab, traffic.flows, read_model(model), model)
    carried = mixed(files, traffic.flows, manner.mode if traffic.kind == CAPTURE else Mode.SESSION, lab.topology)
    if carried.flows.empty:
        nothing = f"{traffic.packets} packets and no flow"
        raise InvalidInput(files[0], 1, 1, nothing, "traffic with TCP, UDP or ICMP echo flows")
    flows = classified(carried.flows, [flow_rule(rule) for rule in rules.classes])
    placed = place(flows, lab.topology, files)
    loaded = multiplied(carried.over_sockets(placed.flows), traffic.messages, manner.load, manner.seed)
    plan = schedule(
        loaded.flows,
        loaded.messages,
        traffic.payloads,
        lambda address: node_of(lab.topology, address),
        speed or rules.speed,
    )
    configs = {n.name: {file: path.read_bytes() for file, path in n.configs.items()} for n in lab.topology.nodes}
    plan = terminated(plan, ends_tls(lab.topology, configs))
    unplayable = {**loaded.left_out, **dict(plan.unplayable)}
    as_packets = carried.as_packets(placed.flows, unplayable)
    packets = carried.plan(as_packets, placed.flows, lab.topology, plan.speed)
    if not plan.scripts and not packets:
        raise InvalidInput(
            files[0], 1, 1, "no flow that can be replayed", "flows whose client is a host or edge of the lab"
        )
    if packets is not None:
        for flow_id in as_packets["flow_id"]:
            unplayable.pop(flow_id, None)
        unplayable.update(packets.unplayable)
    everyone = pd.concat([placed.flows, loaded.copies]) if len(loaded.copies) else placed.flows
    playable = everyone[~everyone["flow_id"].isin(list(unplayable))].reset_index(drop=True)
    return Case(
        lab,
        edit,
        rules,
        Placed(playable, {**placed.left_out, **carried.left_out, **unplayable}),
        plan,
        dict(traffic.skipped),
        configs,
        packets,
        tuple(placed_loads(manner.background, lab.topology, placed.flows)),
        manner,
        notes,
    )


def declaring(case: Case, given: Path | None, today: date, *, intents: bool = True) -> Case:
    """The case with what its change is expected to do: by the file that is given, or by its own expect.yaml.

    `today` is the day that waivers are held against; without `intents` they alone are in force.  InvalidInput.
    """
    lab, path = case.lab, given or case.change.source / EXPECT
    if given is None and not path.is_file():
        return replace(case, expectations=replace(NONE, today=today))
    inside = path.resolve().is_relative_to(lab.folder.resolve())
    shown_as = path.resolve().relative_to(lab.folder.resolve()).as_posix() if inside else str(path)
    known = [rule.name for rule in case.policy.classes]
    found = read_expectations(path, lab.topology, known, today, shown_as)
    found = found if intents else found.without_intents()
    flows = parted(case.placed.flows, found.intents)
    return replace(case, expectations=found, placed=replace(case.placed, flows=flows))


def _refuse_truncated(files: tuple[Path, ...]) -> None:
    """Say which capture ends too early: flows missing from its end would be flows silently not judged."""
    for file in files:
        packets, skipped = read_packets([file])
        if sum(skipped[reason] for reason in CUT_SHORT):
            end = f"the end of the file in the middle of a record, after {len(packets)} good packets"
            raise InvalidInput(file, 1, 1, end, "a capture that is complete (copy it again, or repair it with editcap)")
