"""What the network was seen to refuse, as packet filter rules of the gateways it happened at.

Pure: classes of the observed flow control model in, rule files out. Knows no other rules than these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pandas as pd

from replay.columns import TCP, UDP
from replay.ofcm import POOLED_PORT

FILES = {4: "iptables.rules", 6: "ip6tables.rules"}
MOST_RULES = 200
_TARGETS = {"unanswered": "DROP", "denied": "REJECT"}
_NAMES = {TCP: "tcp", UDP: "udp"}


@dataclass(frozen=True, slots=True)
class Refused:
    """A class of flows that a node is to refuse; `port` None stands for any."""

    source: str
    destination: str
    protocol: str
    port: int | None
    outcome: str
    flows: int


@dataclass(frozen=True, slots=True)
class Drafted:
    """Rule files by (node, name), how many rules they have, and what could not be said in a rule."""

    files: Mapping[tuple[str, str], bytes]
    rules: int
    doubts: tuple[str, ...]


def drafted(
    classes: pd.DataFrame,
    flows: pd.DataFrame,
    owner: Mapping[str, str],
    last_forwarder: Mapping[tuple[str, str], str | None],
) -> Drafted:
    """Rules for the classes that were denied or left unanswered, at the last gateway before their destination.

    A reset needs no rule: nobody listens there. Rules of rare ports stand last, behind what was accepted.
    """
    refused = classes[classes["disposition"].isin(list(_TARGETS)) & classes["protocol"].isin(list(_NAMES))]
    at: dict[str, list[Refused]] = {}
    doubts = []
    for row in refused.head(MOST_RULES).to_dict("records"):
        mine = _flows_of(flows, {str(name): value for name, value in row.items()})
        port = None if row["port"] == POOLED_PORT else int(row["port"])
        one = Refused(
            str(row["source"]),
            str(row["destination"]),
            _NAMES[int(row["protocol"])],
            port,
            str(row["disposition"]),
            len(mine),
        )
        if row["share"] < 1:
            doubts.append(f"{_said(one)}: others of this class were accepted, so it has no rule")
            continue
        places = {
            last_forwarder.get((owner[source], owner[target]))
            for source, target in mine[["source_address", "destination_address"]].drop_duplicates().to_numpy().tolist()
            if source in owner and target in owner
        }
        for place in sorted(place for place in places if place):
            at.setdefault(place, []).append(one)
        if not places - {None}:
            doubts.append(f"{_said(one)}: no gateway stands between, so nothing refuses it in the lab")
    if len(refused) > MOST_RULES:
        doubts.append(f"{len(refused) - MOST_RULES} refused classes of few flows have no rule")
    accepted = classes[(classes["disposition"] == "accepted") & classes["protocol"].isin(list(_NAMES))]
    files = {
        (node, FILES[version]): _file([one for one in each if _version(one) == version], accepted, version)
        for node, each in at.items()
        for version in sorted({_version(one) for one in each})
    }
    return Drafted(files, sum(len(each) for each in at.values()), tuple(doubts))


def _flows_of(flows: pd.DataFrame, row: Mapping[str, object]) -> pd.DataFrame:
    mine = flows[(flows["protocol"] == row["protocol"]) & (flows["outcome"] == row["disposition"])]
    if row["port"] != POOLED_PORT:
        mine = mine[mine["destination_port"] == row["port"]]
    for column, name in (("source_address", "source"), ("destination_address", "destination")):
        network = ip_network(str(row[name]))
        inside = [text for text in mine[column].unique().tolist() if ip_address(text) in network]
        mine = mine[mine[column].isin(inside)]
    return mine


def _file(refused: list[Refused], accepted: pd.DataFrame, version: int) -> bytes:
    lines = [
        "# Drafted from what was refused in the captured traffic: make it what the network really says.",
        "*filter",
    ]
    lines += [":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    lines += ["-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"]
    lines += [_line(one) for one in refused if one.port is not None]
    rare = [one for one in refused if one.port is None]
    if rare:
        for row in accepted[["destination", "protocol", "port"]].drop_duplicates().to_dict("records"):
            network = ip_network(str(row["destination"]))
            if network.version == version and row["port"] != POOLED_PORT:
                lines.append(
                    f"-A FORWARD -d {network} -p {_NAMES[int(row['protocol'])]} --dport {row['port']} -j ACCEPT"
                )
    lines += [_line(one) for one in rare]
    return "\n".join([*lines, "COMMIT", ""]).encode()


def _line(one: Refused) -> str:
    port = "" if one.port is None else f" --dport {one.port}"
    count = f"{one.flows} flow{'s' * (one.flows != 1)} {one.outcome}"
    return (
        f"-A FORWARD -s {ip_network(one.source)} -d {ip_network(one.destination)} -p {one.protocol}{port} "
        f'-m comment --comment "{count}" -j {_TARGETS[one.outcome]}'
    )


def _said(one: Refused) -> str:
    port = "rare ports" if one.port is None else str(one.port)
    return f"{one.flows} {one.outcome} from {one.source} to {one.destination} {one.protocol}/{port}"


def _version(one: Refused) -> int:
    return ip_network(one.destination).version
