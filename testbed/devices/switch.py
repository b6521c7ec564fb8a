"""A switch: a Linux bridge over all of the node's interfaces, with spanning tree and VLANs as the lab asks.

It knows no other kind; where the machine filters bridged frames, that is the machine's business.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.devices.base import Box, Configs, Readiness, Reading
from testbed.devices.linux import LinuxNode
from testbed.errors import CommandFailed, Unsupported
from testbed.network.link import kernel_name
from topologies.model import Interface

BRIDGE_NAME = "br0"
DEFAULT_VLAN = 1
ON_OUR_KERNEL = "run it on the kernel that the project brings: testbed lab run -- COMMAND"
UNDECIDED = frozenset({"listening", "learning", "disabled"})


class Bridge(LinuxNode):
    """All ports in one bridge; without `stp` a loop in the lab is the lab's own."""

    def start(self, box: Box, configs: Configs) -> None:
        """Make the bridge, put every interface in it, set VLANs and read them back."""
        super().start(box, configs)
        # without a spanning tree there is nothing to listen for; with one the kernel's own delay is kept
        spanning = ["stp_state", "1"] if box.node.stp else ["forward_delay", "0"]
        box.run(["ip", "link", "add", BRIDGE_NAME, "type", "bridge", *spanning])
        if box.node.stp and _facts(box)["stp_state"] != 1:
            raise Unsupported(f"{box.node.name}: the kernel has no spanning tree", ON_OUR_KERNEL)
        for interface in box.node.interfaces:
            box.run(["ip", "link", "set", kernel_name(interface.name), "master", BRIDGE_NAME])
        if any(_has_vlans(interface) for interface in box.node.interfaces):
            _filter(box)
        box.run(["ip", "link", "set", BRIDGE_NAME, "up"])
        (box.home / "run" / "bridged").touch()

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Every port forwarding, or blocked by a spanning tree that has had its time."""
        states = port_states(box)
        age_seconds = time.time() - (box.home / "run" / "bridged").stat().st_mtime
        settled = box.node.stp and age_seconds > 2 * _facts(box)["forward_delay"] / 100
        for interface in box.node.interfaces:
            state = states.get(kernel_name(interface.name), "absent")
            if state != "forwarding" and not (settled and state not in UNDECIDED):
                why = f"{box.node.name}: port {interface.name} to forward ({state})"
                return Readiness(ready=False, waiting_for=why)
        return Readiness(ready=True)

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """The kernel's counters, and whether each port forwards."""
        states = port_states(box)
        ports = [
            Reading("port", i.name, "state", 1.0, cumulative=False, state=states.get(kernel_name(i.name), "absent"))
            for i in box.node.interfaces
        ]
        return [*super().readings(box, configs), *ports]


def port_states(box: Box) -> dict[str, str]:
    """`forwarding`, `listening` and their like by the kernel's name of the port."""
    ports = json.loads(box.run(["bridge", "-j", "link"]) or "[]")
    return {port["ifname"]: port.get("state", "disabled") for port in ports}


def _facts(box: Box) -> Mapping[str, Any]:
    (link,) = json.loads(box.run(["ip", "-d", "-j", "link", "show", "dev", BRIDGE_NAME]))
    facts: Mapping[str, Any] = link["linkinfo"]["info_data"]
    return facts


def _has_vlans(interface: Interface) -> bool:
    return interface.vlan is not None or bool(interface.trunk)


def vlans_of(interface: Interface) -> dict[int, frozenset[str]]:
    """VLANs of a port with their flags; a port of which the lab says nothing is in the default VLAN."""
    untagged = interface.vlan if _has_vlans(interface) else DEFAULT_VLAN
    tagged: dict[int, frozenset[str]] = {vlan: frozenset() for vlan in interface.trunk}
    return tagged | ({} if untagged is None else {untagged: frozenset({"PVID", "Egress Untagged"})})


def _filter(box: Box) -> None:
    try:
        box.run(["ip", "link", "set", BRIDGE_NAME, "type", "bridge", "vlan_filtering", "1"])
        able = _facts(box).get("vlan_filtering") == 1
    except CommandFailed:
        able = False
    if not able:
        raise Unsupported(f"{box.node.name}: this kernel's bridge cannot filter VLANs", ON_OUR_KERNEL)
    for interface in box.node.interfaces:
        port = kernel_name(interface.name)
        wanted = vlans_of(interface)
        if DEFAULT_VLAN not in wanted:
            box.run(["bridge", "vlan", "del", "dev", port, "vid", str(DEFAULT_VLAN)])
        for vlan, flags in wanted.items():
            words = ["pvid", "untagged"] if flags else []
            box.run(["bridge", "vlan", "add", "dev", port, "vid", str(vlan), *words])
    shown = {row["ifname"]: row["vlans"] for row in json.loads(box.run(["bridge", "-j", "vlan", "show"]) or "[]")}
    for interface in box.node.interfaces:
        rows = shown.get(kernel_name(interface.name), ())
        found = {int(row["vlan"]): frozenset(row.get("flags", ())) for row in rows}
        if found != vlans_of(interface):
            raise Unsupported(f"{box.node.name}:{interface.name} has VLANs {found}, not those asked for", ON_OUR_KERNEL)


BRIDGE = Bridge()
