"""The inferred network written as a lab folder: topology, drafts of rules and policy, the traffic, and a README.

The only file here that reads or writes files. It knows no device.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pandas as pd

from replay.errors import InvalidCapture
from replay.meter import Metered, read_traffic
from replay.ofcm import classes, model_of, timed
from replay.records import is_capture, read_flow_records
from replay.stations import Stations, read_stations
from testbed.errors import InvalidInput
from testbed.infer.homes import Neighbourhood, neighbourhood
from testbed.infer.plan import Plan, TooLarge, planned
from testbed.infer.policy_draft import policy_text
from testbed.infer.roles import Roles, roles
from testbed.infer.rules import Drafted, drafted
from testbed.infer.story import readme
from topologies.imported import Files
from topologies.load import Lab, load_lab
from topologies.model import Node, Topology
from topologies.write import write_lab

NOTHING = "none"
_PACKED = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class Inferred:
    """A lab as it was written, with all that was found on the way."""

    lab: Lab
    plan: Plan
    roles: Roles
    rules: Drafted
    flows: pd.DataFrame
    classes: pd.DataFrame
    from_records: bool


def infer(sources: Sequence[Path], folder: Path, name: str) -> Inferred:
    """Read captures or flow records, infer the network they passed, and write it as a lab.

    Raises InvalidInput for sources that are neither or hold no flow, for more machines than a lab holds, and for a
    folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(folder, 1, 1, "something that is there already", "an empty folder or none")
    flows, seen, metered = _read(sources)
    kept = _between_machines(flows)
    if kept.empty:
        raise InvalidInput(sources[0], 1, 1, f"{len(flows)} flows and none between two machines", "flows of machines")
    pairs = list(kept[["source_address", "destination_address"]].drop_duplicates().itertuples(index=False, name=None))
    around: Neighbourhood = neighbourhood(seen, {address for pair in pairs for address in pair})
    found = roles(kept, around.homes, metered)
    try:
        plan = planned(name, seen, around, found, [(str(a), str(b)) for a, b in pairs])
    except TooLarge as problem:
        many, _, most = str(problem).partition(", expected ")
        raise InvalidInput(sources[0], 1, 1, many, most) from None
    table = classes(model_of(kept if metered is None else timed(metered).loc[kept.index]))
    rules = drafted(table, kept, plan.owner, plan.last_forwarder)
    topology = _with_firewalls(plan.topology, rules.files)
    write_lab(topology, rules.files, folder, remarks=plan.remarks)
    (folder / "policy.yaml").write_text(policy_text(table), encoding="utf-8")
    kept_as = _copied(sources, folder / "traffic")
    _put_change(folder)
    story = readme(name, plan, rules, kept, kept_as, from_records=metered is None)
    (folder / "README.md").write_text(story, encoding="utf-8")
    return Inferred(load_lab(folder), plan, found, rules, kept, table, metered is None)


def _read(sources: Sequence[Path]) -> tuple[pd.DataFrame, Stations, Metered | None]:
    try:
        captures = [path for path in sources if is_capture(path)]
        if captures and len(captures) < len(sources):
            other = next(path for path in sources if path not in captures)
            raise InvalidInput(other, 1, 1, "something else beside a capture", "only captures, or none")
        if captures:
            metered = read_traffic(captures)
            return metered.flows, read_stations(captures), metered
        return read_flow_records(sources).flows, Stations(), None
    except InvalidCapture as problem:
        raise InvalidInput(problem.path, problem.line or 1, 1, problem.found, problem.expected) from None


def _between_machines(flows: pd.DataFrame) -> pd.DataFrame:
    """Flows without those to groups, to everybody or of a link alone."""
    ends = zip(flows["source_address"].tolist(), flows["destination_address"].tolist(), strict=True)
    return flows[np.fromiter((_is_machine(a) and _is_machine(b) for a, b in ends), np.bool_, len(flows))]


def _is_machine(text: str) -> bool:
    address = ip_address(text)
    alone = address.is_multicast or address.is_link_local or address.is_unspecified or address.is_loopback
    return not alone and text != "255.255.255.255"


def _with_firewalls(topology: Topology, files: Files) -> Topology:
    """Gateways that refuse something are firewalls."""
    refusing = {node for node, _ in files}
    nodes = tuple(_as_firewall(node) if node.name in refusing else node for node in topology.nodes)
    return Topology(topology.name, nodes, topology.links)


def _as_firewall(node: Node) -> Node:
    return Node(node.name, "firewall", node.interfaces, node.routes, node.prefixes, node.listen)


def _copied(sources: Sequence[Path], traffic: Path) -> list[str]:
    """The sources beside the lab, packed; a capture's name tells the loader what it is."""
    traffic.mkdir(exist_ok=True)
    names: list[str] = []
    for number, source in enumerate(sources):
        stem = (
            source.name
            if not number or source.name not in {Path(one).stem for one in names}
            else f"{number}-{source.name}"
        )
        if is_capture(source) and ".pcap" not in stem:
            stem += ".pcap"
        with source.open("rb") as opened:
            packed = opened.read(6).startswith(_PACKED)
        name = stem if packed else f"{stem}.gz"
        target = traffic / name
        with source.open("rb") as opened, target.open("wb") as written:
            if packed:
                shutil.copyfileobj(opened, written)
            else:
                with gzip.GzipFile(filename="", mode="wb", fileobj=written, mtime=0, compresslevel=6) as packing:
                    shutil.copyfileobj(opened, packing)
        names.append(name)
    return names


def _put_change(folder: Path) -> None:
    change = folder / "changes" / NOTHING
    change.mkdir(parents=True)
    (change / "README.md").write_text(
        "Nothing changes: the network against itself, which must pass.\n", encoding="utf-8"
    )
    (change / "expected.yaml").write_text("verdict: PASS\n", encoding="utf-8")
