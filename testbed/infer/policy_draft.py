"""A first policy.yaml out of the observed classes: one class a service, all of priority normal. Pure."""

from __future__ import annotations

import re

import pandas as pd

from replay.columns import ICMP, TCP, UDP
from replay.ofcm import POOLED_PORT

MOST_CLASSES = 40
_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp"}


def policy_text(classes: pd.DataFrame) -> str:
    """The draft as text; services of most flows first, the rest stay in the class `other`."""
    lines = [
        "# Drafted from the observed classes. What they are worth, only you know: set each priority to",
        "# critical, high, normal or low. The first class that matches a flow has it.",
        "classes:",
    ]
    known = classes[classes["protocol"].isin(list(_NAMES)) & (classes["port"] != POOLED_PORT)]
    services = known.groupby(["destination", "protocol", "port"], sort=True).agg(
        flows=("flows", "sum"), accepted=("accepted", "sum"), application=("application", "max"), label=("label", "max")
    )
    services = services.reset_index().sort_values(["flows", "destination", "port"], ascending=[False, True, True])
    used: set[str] = set()
    for row in services.head(MOST_CLASSES).to_dict("records"):
        protocol, port = _NAMES[int(row["protocol"])], int(row["port"])
        service = str(row["application"]) or (protocol if protocol == "icmp" else f"{protocol}-{port}")
        name = re.sub(r"[^a-z0-9.]+", "-", f"{service}-{row['destination']}".lower()).strip("-")
        while name in used:
            name += f"-{port}"
        used.add(name)
        match = [f"protocol: {protocol}", *([f"port: {port}"] if protocol != "icmp" else [])]
        match.append(f'destination: "{row["destination"]}"')
        asked = f", clients ask for {row['label']}" if row["label"] else ""
        asked = "".join(sign if sign.isprintable() else " " for sign in asked)
        lines.append(f"  # {row['flows']:,.10g} flows, {row['accepted']:,.10g} of them accepted{asked}")
        lines.append(f'  - {{name: "{name}", priority: normal, match: {{{", ".join(match)}}}}}')
    if not used:
        lines[-1] = "classes: []"
    return "\n".join([*lines, ""])
