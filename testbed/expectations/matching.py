"""Which rows of a table an expectation is about, and classes parted where only some of their flows have a bound.

Pure.  Any table with the ends, protocol, class and priority of flows will do; may not know how it was measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import translate
from ipaddress import ip_address

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.kpi import Tolerance
from testbed.expectations.model import Intent, Match, Service
from topologies.model import IpNetwork

Bool = npt.NDArray[np.bool_]

PART = " · "
"""Between a class and the expectation that has a bound for this part of it."""


def matched(table: pd.DataFrame, match: Match) -> Bool:
    """The rows that fulfil every condition; where the table has no label or application, such a condition fits none."""
    found = np.ones(len(table), np.bool_)
    if match.services is not None:
        found &= np.logical_or.reduce([_of_service(table, service) for service in match.services])
    for networks, column in ((match.source, "source_address"), (match.destination, "destination_address")):
        if networks is not None:
            found &= _inside(table[column], networks)
    if match.ends is not None:
        found &= _inside(table["source_address"], match.ends) | _inside(table["destination_address"], match.ends)
    if match.classes is not None:
        names = table["flow_class"]
        found &= (names.isin(match.classes) | names.map(whole_class).isin(match.classes)).to_numpy(np.bool_)
    if match.priorities is not None:
        found &= table["priority"].isin(match.priorities).to_numpy(np.bool_)
    if match.application is not None:
        found &= _text(table, "application", re.compile(re.escape(match.application)))
    if match.label is not None:
        found &= _text(table, "label", re.compile(translate(match.label), re.IGNORECASE))
    return found


def whole_class(name: str) -> str:
    """The policy's class of which this is a part."""
    return name.partition(PART)[0]


def parted(flows: pd.DataFrame, intents: Sequence[Intent]) -> pd.DataFrame:
    """The flows, those with a bound in a part of their class of their own where not all of the class have it.

    The first intent with bounds that matches a flow counts.
    """
    if flows.empty or not any(intent.bounds for intent in intents):
        return flows
    names = flows["flow_class"].astype(object).to_numpy()
    bounded_by = _bounded_by(flows, intents)
    told = names.copy()
    for name in dict.fromkeys(names.tolist()):
        members = np.flatnonzero(names == name)
        if len(set(bounded_by[members].tolist())) > 1:
            for row in members:
                if bounded_by[row] >= 0:
                    told[row] = f"{name}{PART}{intents[bounded_by[row]].name}"
    return flows.assign(flow_class=pd.Series(told, index=flows.index, dtype="str"))


def bounds_by_class(flows: pd.DataFrame, intents: Sequence[Intent]) -> Mapping[tuple[str, str], Tolerance]:
    """By class, as `parted` names them, and KPI: how far it may worsen."""
    if flows.empty or not any(intent.bounds for intent in intents):
        return {}
    found: dict[tuple[str, str], Tolerance] = {}
    for name, at in zip(flows["flow_class"].tolist(), _bounded_by(flows, intents).tolist(), strict=True):
        if at >= 0:
            found.update({(str(name), kpi): bound for kpi, bound in intents[at].bounds.items()})
    return found


def _bounded_by(flows: pd.DataFrame, intents: Sequence[Intent]) -> npt.NDArray[np.int64]:
    """The place of the intent whose bounds hold for each flow, -1 for none."""
    found = np.full(len(flows), -1, np.int64)
    for at in reversed([at for at, intent in enumerate(intents) if intent.bounds]):
        found[matched(flows, intents[at].match)] = at
    return found


def _of_service(table: pd.DataFrame, service: Service) -> Bool:
    found = table["protocol"].isin(service.protocols).to_numpy(np.bool_)
    if service.ports is not None:
        ports = table["destination_port"].to_numpy(np.int64)
        first, last = service.ports
        found = found & (ports >= first) & (ports <= last)
    return found


def _inside(addresses: pd.Series[str], networks: Sequence[IpNetwork]) -> Bool:
    known = {str(text): _within(str(text), networks) for text in addresses.unique().tolist()}
    return addresses.map(known).to_numpy(np.bool_)


def _within(text: str, networks: Sequence[IpNetwork]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address.version == network.version and address in network for network in networks)


def _text(table: pd.DataFrame, column: str, pattern: re.Pattern[str]) -> Bool:
    if column not in table:
        return np.zeros(len(table), np.bool_)
    return table[column].map(lambda text: pattern.fullmatch(str(text)) is not None).to_numpy(np.bool_)
