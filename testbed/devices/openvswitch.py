"""A switch that is Open vSwitch: its own database server and daemon in the node, OpenFlow rules from flows.txt.

It knows no other kind.  Frames pass through the kernel's datapath; the daemon's own, in user space, only where
the node's openvswitch.conf asks for it, since it is another instrument with other delays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.devices.base import Box, Complaint, Configs, Readiness, Reading
from testbed.devices.linux import ALL_KINDS, LinuxNode
from testbed.devices.switch import BRIDGE_NAME, ON_OUR_KERNEL
from testbed.errors import CommandFailed, Unsupported
from testbed.network.link import kernel_name
from topologies.model import Interface

FLOWS = "flows.txt"
SETTINGS = "openvswitch.conf"
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
RUN = "/run/openvswitch"
DATAPATHS = {"system", "netdev"}
_AT_LINE = re.compile(r"^ovs-ofctl: [^:\n]*:(\d+): (.*)$", re.M)
_FLOW = re.compile(
    r"table=(?P<table>\d{1,3}), n_packets=(?P<packets>\d{1,20}), n_bytes=\d+, "
    r"(?:\w+_timeout=\d+, )*(?:\w+_age=\d+, )*(?P<match>\S+) (?P<actions>actions=.*)$"
)


class OpenVSwitch(LinuxNode):
    """All interfaces in one Open vSwitch bridge: a learning switch until flows.txt says otherwise."""

    reads = ALL_KINDS | {FLOWS, SETTINGS}

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """`ovs-ofctl parse-flows` on flows.txt, beside the packet filter's check."""
        complaints = [*super().check(box, configs), *_settings(configs)[1]]
        if FLOWS in configs and not complaints:
            path = f"/etc/{FLOWS}"
            try:
                box.run(["ovs-ofctl", "parse-flows", path], files={path: configs[FLOWS]})
            except CommandFailed as failure:
                place = _AT_LINE.search(failure.stderr)
                said = place[2] if place else " ".join(failure.stderr.split())
                complaints.append(Complaint(FLOWS, int(place[1]) if place else None, said))
        return complaints

    def start(self, box: Box, configs: Configs) -> None:
        """Database, its server and the switch daemon, all private to the node; raises Unsupported."""
        super().start(box, configs)
        if not SCHEMA.exists():
            raise Unsupported("Open vSwitch is not installed", "install the package openvswitch-switch")
        (box.home / "run" / "openvswitch").mkdir(exist_ok=True)
        if _settings(configs)[0] == "system":
            _need_kernel(box)
        box.run(["ovsdb-tool", "create", f"{RUN}/conf.db", str(SCHEMA)])
        quiet = ("-vsyslog:off", "-vconsole:warn")
        socket = f"{RUN}/db.sock"
        box.spawn(
            "ovsdb-server",
            ["ovsdb-server", f"{RUN}/conf.db", f"--remote=punix:{socket}", f"--unixctl={RUN}/db.ctl", *quiet],
        )
        reach = ["ovs-vsctl", "--retry", "--timeout=10", f"--db=unix:{socket}", "--no-wait"]
        # without it the user-space datapath hands on checksums that the sender left to hardware it has not
        box.run([*reach, "init", "--", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true"])
        box.spawn("ovs-vswitchd", ["ovs-vswitchd", f"unix:{socket}", f"--unixctl={RUN}/switch.ctl", *quiet])
        words = ["add-br", BRIDGE_NAME, "--", "set", "bridge", BRIDGE_NAME, f"datapath_type={_settings(configs)[0]}"]
        words += [f"stp_enable={str(box.node.stp).lower()}", "fail_mode=standalone"]
        for number, interface in enumerate(box.node.interfaces, start=1):
            words += ["--", "add-port", BRIDGE_NAME, kernel_name(interface.name), *port_columns(interface)]
            words += ["--", "set", "interface", kernel_name(interface.name), f"ofport_request={number}"]
        _vsctl(box, *words)
        if FLOWS in configs:
            _replace(box, configs[FLOWS])

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Both daemons alive, every port in the datapath and, with a spanning tree, forwarding or blocked."""
        for name in ("ovsdb-server", "ovs-vswitchd"):
            process = box.process(name)
            if process is None or process.poll() is not None:
                return Readiness(ready=False, waiting_for=f"{box.node.name}: {name} ended by itself")
        rows = _table(box, "interface", "name", "ofport", "error")
        ports = {row["name"]: row for row in rows}
        states = {row["name"]: row["status"] for row in _table(box, "port", "name", "status")} if box.node.stp else {}
        for interface in box.node.interfaces:
            row = ports.get(kernel_name(interface.name), {})
            if row.get("error"):
                why = f"{box.node.name}: port {interface.name} ({row['error']})"
                return Readiness(ready=False, waiting_for=why)
            if not str(row.get("ofport", "")).isdigit():
                return Readiness(ready=False, waiting_for=f"{box.node.name}: port {interface.name} to be taken in")
            state = re.search(r"stp_state\W+(\w+)", str(states.get(kernel_name(interface.name), "")))
            if state is not None and state[1] in ("listening", "learning"):
                return Readiness(
                    ready=False, waiting_for=f"{box.node.name}: port {interface.name} to forward ({state[1]})"
                )
        return Readiness(ready=True)

    def reload(self, box: Box, before: Configs, after: Configs) -> None:
        """Replace the flows in one bundle; counters of flows that stay are kept."""
        super().reload(box, before, after)
        if _settings(before) != _settings(after):
            raise Unsupported(f"{box.node.name}: another datapath needs another switch", "build the lab with it")
        if before.get(FLOWS) != after.get(FLOWS):
            _replace(box, after.get(FLOWS, b"priority=0,actions=NORMAL\n"))

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """The kernel's counters, and the packets of every flow."""
        told = read_flows(box.run(["ovs-ofctl", "-O", "OpenFlow13", "dump-flows", _address()]))
        return [*super().readings(box, configs), *told]


def port_columns(interface: Interface) -> list[str]:
    """How a port's VLANs are said to Open vSwitch."""
    columns = []
    if interface.vlan is not None:
        columns += [f"tag={interface.vlan}", f"vlan_mode={'native-untagged' if interface.trunk else 'access'}"]
    elif interface.trunk:
        columns.append("vlan_mode=trunk")
    if interface.trunk:
        columns.append(f"trunks={','.join(str(vlan) for vlan in interface.trunk)}")
    return columns


def read_flows(text: str) -> list[Reading]:
    """One reading a flow of `ovs-ofctl dump-flows`; table, priority and match name it."""
    found: dict[str, Reading] = {}
    for line in text.splitlines():
        if flow := _FLOW.search(line):
            name = f"{FLOWS}:{flow['table']}/{flow['match']}"
            state = f"{flow['match']} {flow['actions']}"
            found[name] = Reading("rule", name, "packets", float(flow["packets"]), state=state)
    return list(found.values())


def _settings(configs: Configs) -> tuple[str, list[Complaint]]:
    """The datapath that openvswitch.conf asks for, and what it says that we do not know."""
    datapath, complaints = "system", []
    for number, line in enumerate(configs.get(SETTINGS, b"").decode(errors="replace").split("\n"), start=1):
        name, _, value = (part.strip() for part in line.partition("="))
        if not name or name.startswith("#"):
            continue
        if name == "datapath_type" and value in DATAPATHS:
            datapath = value
        else:
            said = f"found {line.strip()!r}, expected datapath_type = system or netdev"
            complaints.append(Complaint(SETTINGS, number, said))
    return datapath, complaints


def _need_kernel(box: Box) -> None:
    try:
        box.run(["ovs-dpctl", "dump-dps"])
    except CommandFailed:
        raise Unsupported(f"{box.node.name}: this kernel has no Open vSwitch", ON_OUR_KERNEL) from None


def _vsctl(box: Box, *words: str) -> str:
    return box.run(["ovs-vsctl", "--timeout=10", f"--db=unix:{RUN}/db.sock", *words])


def _table(box: Box, table: str, *columns: str) -> list[Mapping[str, object]]:
    told = json.loads(_vsctl(box, "--format=json", f"--columns={','.join(columns)}", "list", table))
    # an optional column without a value is an empty set
    rows = ([None if value == ["set", []] else value for value in row] for row in told["data"])
    return [dict(zip(told["headings"], row, strict=True)) for row in rows]


def _address() -> str:
    return f"unix:{RUN}/{BRIDGE_NAME}.mgmt"


def _replace(box: Box, flows: bytes) -> None:
    box.run(["ovs-ofctl", "-O", "OpenFlow14", "--bundle", "replace-flows", _address(), "-"], stdin=flows)
    # what the datapath has cached of the flows before is taken back by threads of its own
    box.run(["ovs-appctl", "-t", f"{RUN}/switch.ctl", "revalidator/wait"])


OPENVSWITCH = OpenVSwitch()
