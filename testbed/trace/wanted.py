"""A run's inputs read again, unchanged to the octet, and the flow of it that is asked for.

It reads the run directory and the files that it names.  It knows no shadow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pandas as pd

from replay.schedule import FlowScript
from testbed.devices.base import Device
from testbed.errors import InvalidInput
from testbed.packet_flows import Manner, Mode
from testbed.prepare import Case, open_lab, prepared
from testbed.record_of_run import digest, input_digests
from testbed.store import RunDirectory
from testbed.verdict_file import BlameEntry, read_verdict
from topologies.located import nearest

WORST = "worst"
AGAIN = "the file as it was when the run was made (or a new run on this one)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that can be repeated, the chosen flow's row and script, and what the run said of it.

    `failed` tells for "baseline" and "treatment" whether the flow failed in every such window of the run.
    """

    directory: RunDirectory
    case: Case
    flow: Mapping[str, object]
    script: FlowScript
    seed: int
    failed: Mapping[str, bool]
    blame: BlameEntry | None = None


def wanted(run: Path, flow: str, devices: Mapping[str, Device]) -> Wanted:
    """The run and the flow; raises InvalidInput when either is not there, or an input is not what it was."""
    directory = RunDirectory(run.absolute())
    flows = _table(directory, "flows")
    record = _record(directory)
    kpis = _kpis(directory)
    row = chosen_flow(flows, flow, directory, kpis)
    case = _case(directory, record, devices)
    flow_id = str(row["flow_id"])
    script = next((one for one in case.schedule.scripts if one.flow_id == flow_id), None)
    if script is None:
        found = f"flow {flow_id}, which the run sent as packets"
        raise InvalidInput(directory.path / "flows.parquet", 1, 1, found, "a flow that sockets replay")
    failed = {role: _failed(kpis, flow_id, role) for role in ("baseline", "treatment")}
    plan = cast("Mapping[str, int]", record["plan"])
    return Wanted(directory, case, row, script, int(plan["seed"]), failed, _blame(directory, row))


def chosen_flow(
    flows: pd.DataFrame, flow: str, directory: RunDirectory, kpis: pd.DataFrame | None
) -> dict[str, object]:
    """The row of a flow id, of its unambiguous prefix, of a class's first flow, or of `worst`."""
    where = directory.path / "flows.parquet"
    ids = flows["flow_id"].astype(str)
    if flow == WORST:
        return _row(flows, worst_flow(flows, directory, kpis))
    if (ids == flow).any():
        return _row(flows, flow)
    classes = list(dict.fromkeys(flows["flow_class"].astype(str))) if "flow_class" in flows else []
    if flow in classes:
        own = flows[flows["flow_class"] == flow].sort_values("start_ns", kind="stable")
        return _row(flows, str(own["flow_id"].iloc[0]))
    begun = ids[ids.str.startswith(flow)] if flow else ids.iloc[:0]
    if len(begun) == 1:
        return _row(flows, begun.iloc[0])
    if len(begun) > 1:
        some = ", ".join(sorted(begun)[:5])
        raise InvalidInput(where, 1, 1, f"{flow!r}, with which {len(begun)} flows begin", f"more of one of: {some}")
    expected = f"a flow id, its beginning, {WORST!r} or a class: {nearest(flow, classes)}"
    raise InvalidInput(where, 1, 1, f"no flow and no class {flow!r}", expected)


def worst_flow(flows: pd.DataFrame, directory: RunDirectory, kpis: pd.DataFrame | None) -> str:
    """The flow hurt most: of those that findings name, one that no longer completes, or else the one slowed most."""
    hurt = [f for one in _findings(directory) for f in one]
    ids = [str(f) for f in flows["flow_id"]]
    among = [f for f in dict.fromkeys(hurt) if f in set(ids)] or ids
    if kpis is None:
        return among[0]
    own = kpis[kpis["flow_id"].isin(among)]
    means = own.groupby(["flow_id", "role"])[["completed", "response_ns"]].mean()
    by = {key: (float(done), float(response)) for key, done, response in means.itertuples(name=None)}
    best, most = among[0], (-1.0, -1.0)
    for flow in among:
        if (flow, "baseline") not in by or (flow, "treatment") not in by:
            continue
        (was_done, was), (done, now) = by[flow, "baseline"], by[flow, "treatment"]
        score = (round(was_done - done, 3), now / was if was > 0 and now == now else 0.0)  # noqa: PLR0124  NaN
        if score > most:
            best, most = flow, score
    return best


def _findings(directory: RunDirectory) -> list[Sequence[str]]:
    try:
        verdict = read_verdict(directory.path)
    except (OSError, ValueError):
        return []
    order = {"FAIL": 0, "WARN": 1}
    findings = sorted((f for f in verdict.findings if f.verdict in order), key=lambda f: order[f.verdict])
    return [finding.flows for finding in findings]


def _blame(directory: RunDirectory, row: Mapping[str, object]) -> BlameEntry | None:
    """Whom the run blamed for what befell the flow or its class."""
    try:
        findings = read_verdict(directory.path).findings
    except (OSError, ValueError):
        return None
    names = {str(row["flow_id"]), str(row.get("flow_class", ""))}
    own = [f for f in findings if f.blame is not None and (f.subject in names or str(row["flow_id"]) in f.flows)]
    return own[0].blame if own else None


def _case(directory: RunDirectory, record: Mapping[str, object], devices: Mapping[str, Device]) -> Case:
    inputs = cast("Mapping[str, str]", record["inputs"])
    for name, was in inputs.items():
        path = Path(name)
        if not path.is_file():
            raise InvalidInput(path, 1, 1, "no such file", AGAIN)
        if digest(path) != was:
            raise InvalidInput(path, 1, 1, f"another content than that of run {directory.run_id}", AGAIN)
    plan = cast("Mapping[str, object]", record["plan"])
    manner = Manner(Mode(str(plan["mode"])), load=float(str(plan["load"])), seed=int(str(plan["seed"])))
    captures = tuple(Path(str(name)) for name in cast("Sequence[str]", record.get("captures", ())))
    policy, model = (Path(str(record[key])) if record.get(key) else None for key in ("policy", "model"))
    with TemporaryDirectory(prefix="testbed-trace-") as work:
        lab = open_lab(str(record["lab"]), Path(work) / "lab", devices).lab
    change = Path(str(record["change"]))
    speed = float(str(plan["speed"]))
    case = prepared(lab, change, devices, captures, policy, speed, manner, model=model)
    added = [name for name in input_digests(case) if name not in inputs]
    if added:
        expected = "the lab and the change as they were then"
        raise InvalidInput(Path(added[0]), 1, 1, f"a file that run {directory.run_id} had not", expected)
    return case


def _record(directory: RunDirectory) -> dict[str, object]:
    path = directory.path / "run.json"
    try:
        record = directory.read_json("run.json")
    except (OSError, ValueError, TypeError) as problem:
        raise InvalidInput(path, 1, 1, f"no record of a run ({problem})", "the run.json that a run wrote") from None
    for key, kind in (("lab", str), ("change", str), ("inputs", dict), ("plan", dict)):
        if not isinstance(record.get(key), kind):
            raise InvalidInput(path, 1, 1, f"no {key!r}", "the run.json that a run wrote")
    plan = cast("Mapping[str, object]", record["plan"])
    for key in ("seed", "speed", "load", "mode"):
        if not isinstance(plan.get(key), int | float | str):
            raise InvalidInput(path, 1, 1, f"no plan/{key}", "the run.json that a run wrote")
    return record


def _table(directory: RunDirectory, name: str) -> pd.DataFrame:
    try:
        return directory.read_table(name)
    except (OSError, ValueError) as problem:
        where = directory.path / f"{name}.parquet"
        raise InvalidInput(where, 1, 1, f"no table ({problem})", "a run directory") from None


def _kpis(directory: RunDirectory) -> pd.DataFrame | None:
    try:
        return directory.read_table("kpis")
    except (OSError, ValueError):
        return None


def _failed(kpis: pd.DataFrame | None, flow_id: str, role: str) -> bool:
    if kpis is None:
        return False
    own = kpis[(kpis["flow_id"] == flow_id) & (kpis["role"] == role)]
    return bool(len(own)) and not own["completed"].astype(bool).any()


def _row(flows: pd.DataFrame, flow_id: str) -> dict[str, object]:
    row = flows[flows["flow_id"] == flow_id].to_dict("records")[0]
    return {str(name): value for name, value in row.items()}
