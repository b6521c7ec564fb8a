"""A topology made real: built in a sandbox, ready by protocol state, reconfigured live, read for blame.

It knows devices and the network, but no traffic, no change format and no verdict.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.devices.base import Complaint, Configs, Device, Forgets, Reading
from testbed.errors import InvalidInput, NotReady
from testbed.network.addressing import add_routes, put_back_addresses, set_addresses, set_sysctls
from testbed.network.fresh_rates import is_rate_only, limit_rates
from testbed.network.kernel_state import PortState, ports, protocol_statistics, queue_drops, routes
from testbed.network.link import Port, Veth, kernel_name, set_mtu
from testbed.network.mininet_api import ShadowNet
from testbed.network.namespace import Namespace
from testbed.network.placed_files import place, tried
from testbed.network.qdisc import impair
from topologies.model import Impairment, Link, LinkEnd, Node, Topology

POLL_SECONDS = 0.1
STABLE_READINGS = 3
PROGRAM = "program"
"""A node's own programs are known to its box as program0, program1 and so on."""

IPV6_LEAST_MTU = 1280
"""Below it the kernel takes IPv6 from an interface, with addresses and routes."""


@dataclass(frozen=True, slots=True)
class NodeKernel:
    """What the kernel tells of one node."""

    namespace: Namespace

    def ports(self) -> list[PortState]:
        """Interfaces with their counters."""
        return ports(self.namespace)

    def queue_drops(self) -> dict[str, int]:
        """Drops by interface."""
        return queue_drops(self.namespace)

    def routes(self) -> dict[str, str]:
        """Both main tables."""
        return routes(self.namespace)

    def protocol_statistics(self) -> dict[tuple[str, str], int]:
        """ICMP and IP counters."""
        return protocol_statistics(self.namespace)


@dataclass(slots=True)
class NodeBox:
    """A node made real: what a device may touch of it."""

    node: Node
    namespace: Namespace
    log_directory: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    """What each setting was before it was first set here."""

    @property
    def home(self) -> Path:
        """The node's private files, seen from the supervisor."""
        return self.namespace.home

    @property
    def kernel(self) -> NodeKernel:
        """The kernel's counters and tables of this node."""
        return NodeKernel(self.namespace)

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        seconds: float = 60.0,
        *,
        apart: bool = False,
        files: Mapping[str, bytes | None] | None = None,
    ) -> str:
        """Run a command inside the node, or in an empty network, or on files of its own; raises CommandFailed."""
        if not files:
            return self.namespace.run(argv, stdin, seconds, apart=apart)
        with tried(self.namespace, files) as trial:
            return trial.run(argv, stdin, seconds, apart=apart)

    def put_files(self, contents: Mapping[str, bytes | None]) -> None:
        """Put files at absolute paths of the node, or take them away, while it runs; raises Unsupported."""
        place(self.namespace, contents)

    def spawn(self, name: str, argv: Sequence[str], output: Path | None = None) -> None:
        """Start a daemon inside the node, its output in a file of its own or in the run's logs."""
        with (output or self.log_directory / f"{self.node.name}.{name}.log").open("ab") as log:
            self.processes[name] = self.namespace.spawn(argv, log)

    def process(self, name: str) -> subprocess.Popen[bytes] | None:
        """The daemon of that name, if it was started."""
        return self.processes.get(name)

    def set_sysctls(self, settings: Mapping[str, str]) -> None:
        """Write and read back settings of this node's network."""
        self.sysctls = {**set_sysctls(self.namespace, settings), **self.sysctls}

    def restore_sysctls(self, names: Iterable[str]) -> None:
        """Give settings the values that the kernel had before anyone here set them."""
        set_sysctls(self.namespace, {name: self.sysctls.pop(name) for name in names if name in self.sysctls})


@dataclass(slots=True)
class Shadow:
    """A running miniature of the network, and the verbs an experiment needs on it."""

    topology: Topology
    devices: Mapping[str, Device]
    net: ShadowNet
    boxes: Mapping[str, NodeBox]
    configs: dict[str, Configs]
    egress: dict[tuple[str, str], Impairment]
    mtu: dict[tuple[str, str], int]
    owed: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """(node, command) that undoes a command run there; kept by who changes nodes, until it is run."""

    def device(self, node: str) -> Device:
        """The device kind of a node."""
        return self.devices[self.boxes[node].node.kind]

    def namespaces(self) -> Mapping[str, int]:
        """Network namespace descriptors by node, for who opens sockets in them."""
        return {name: box.namespace.net_fd for name, box in self.boxes.items()}

    def wait_ready(self, seconds: float, tell: Callable[[str], None]) -> float:
        """Wait until every device is ready and routes hold still; returns the seconds it took.

        `tell` hears each new reason for waiting.  Raises NotReady with the last one.
        """
        started, told, same = time.monotonic(), "", 0
        previous: tuple[tuple[str, str], ...] = ()
        while True:
            lack = self._lack()
            if lack is None:
                routes = self._routes()
                same = same + 1 if routes == previous else 0
                previous = routes
                if same >= STABLE_READINGS:
                    return time.monotonic() - started
                lack = "routes to hold still"
            else:
                same = 0
            if lack != told:
                tell(lack)
                told = lack
            if time.monotonic() - started > seconds:
                raise NotReady("the shadow to be ready", lack)
            time.sleep(POLL_SECONDS)

    def check(self, node: str, configs: Configs) -> Sequence[Complaint]:
        """What the node's own daemons say of these files, without touching what runs."""
        return self.device(node).check(self.boxes[node], configs)

    def reconfigure(self, node: str, configs: Configs) -> None:
        """Change a node's files live, the way production does; raises CommandFailed or NotReady."""
        before = self.configs[node]
        self.configs[node] = configs
        self.device(node).reload(self.boxes[node], before, configs)

    def reshape(self, node: str, interface: str, egress: Impairment, mtu_octets: int) -> None:
        """Change one end of a link in place."""
        namespace = self.boxes[node].namespace
        port = Port(namespace, interface)
        if self.mtu[node, interface] != mtu_octets:
            before, self.mtu[node, interface] = self.mtu[node, interface], mtu_octets
            set_mtu(port, mtu_octets)
            if before < IPV6_LEAST_MTU <= mtu_octets:
                own = self.topology.node(node).interface(interface)
                put_back_addresses(namespace, own)
                near = [r for r in self.topology.node(node).routes if any(r.via in a.network for a in own.addresses)]
                add_routes(namespace, near, anew=True)
        if self.egress[node, interface] != egress:
            self.egress[node, interface] = egress
            impair(port, egress)

    def readings(self) -> dict[str, Sequence[Reading]]:
        """Counters and state of every node."""
        return {name: self.device(name).readings(box, self.configs[name]) for name, box in self.boxes.items()}

    def forget(self) -> None:
        """Drop learnt state in every node, so that windows start alike."""
        for name, box in self.boxes.items():
            device = self.device(name)
            if isinstance(device, Forgets):
                device.forget(box)

    def _lack(self) -> str | None:
        ended = [
            f"{name}: the program {box.node.programs[number][0]} ended by itself"
            for name, box in self.boxes.items()
            for number in range(len(box.node.programs))
            if (process := box.process(f"{PROGRAM}{number}")) is not None and process.poll() is not None
        ]
        if ended:
            return ended[0]
        # every device is asked each time: a router is configured by the first question
        states = [self.device(name).ready(box, self.configs[name]) for name, box in self.boxes.items()]
        return next((state.waiting_for for state in states if not state.ready), None)

    def _routes(self) -> tuple[tuple[str, str], ...]:
        routers = [box for box in self.boxes.values() if box.processes]
        return tuple(route for box in routers for route in sorted(box.kernel.routes().items()))


@contextmanager
def built(topology: Topology, devices: Mapping[str, Device], log_directory: Path) -> Iterator[Shadow]:
    """Build the shadow of a topology in the current sandbox; it is gone when the block ends.

    Raises InvalidInput when a daemon's own checker refuses the lab's file, Unsupported when this
    kernel lacks what the lab asks for, CommandFailed when a daemon does not start.
    """
    log_directory.mkdir(parents=True, exist_ok=True)
    net = ShadowNet()
    try:
        boxes = {n.name: _box(net, n, devices[n.kind], log_directory) for n in topology.nodes}
        configs: dict[str, Configs] = {
            n.name: {file: path.read_bytes() for file, path in n.configs.items()} for n in topology.nodes
        }
        shadow = Shadow(topology, devices, net, boxes, configs, {}, {})
        _cable(shadow)
        for node in topology.nodes:
            set_addresses(boxes[node.name].namespace, node.interfaces, node.prefixes)
            net.tell_addresses(node.name, node.interfaces)
        for node in topology.nodes:
            _refuse_bad_files(shadow, node)
            shadow.device(node.name).start(boxes[node.name], configs[node.name])
        for node in topology.nodes:
            add_routes(boxes[node.name].namespace, node.routes)
        for node in topology.nodes:
            _begin(boxes[node.name])
        yield shadow
    finally:
        net.close()


def _box(net: ShadowNet, node: Node, device: Device, log_directory: Path) -> NodeBox:
    switch = not any(interface.addresses for interface in node.interfaces)
    return NodeBox(node, net.add(node.name, device.directories, switch=switch).namespace, log_directory)


def _cable(shadow: Shadow) -> None:
    shadow.net.connect([_veth(shadow, link) for link in shadow.topology.links])
    rates = []
    for link in shadow.topology.links:
        for end in (link.a, link.b):
            port = Port(shadow.boxes[end.node].namespace, end.interface)
            if is_rate_only(end.egress):
                rates.append((port, end.egress))
            elif end.egress != Impairment():
                impair(port, end.egress)
            shadow.egress[end.node, end.interface] = end.egress
            shadow.mtu[end.node, end.interface] = link.mtu
    limit_rates(rates)


def _veth(shadow: Shadow, link: Link) -> Veth:
    return Veth(_port(shadow, link.a), _port(shadow, link.b), link.mtu)


def _port(shadow: Shadow, end: LinkEnd) -> Port:
    box = shadow.boxes[end.node]
    return Port(box.namespace, end.interface, box.node.interface(end.interface).mac)


def _begin(box: NodeBox) -> None:
    """Run the node's own commands once, then start its programs."""
    for argv in box.node.commands:
        box.run(argv)
    for number, argv in enumerate(box.node.programs):
        box.spawn(f"{PROGRAM}{number}", argv)


def _refuse_bad_files(shadow: Shadow, node: Node) -> None:
    for complaint in shadow.check(node.name, shadow.configs[node.name]):
        path = node.configs[complaint.file]
        raise InvalidInput(
            path, complaint.line or 1, 1, complaint.message, f"a file that {node.kind} {node.name} accepts"
        )


def interface_names(topology: Topology) -> dict[str, dict[str, str]]:
    """Production's interface names and what the kernel calls them, by node, for the run record."""
    return {n.name: {i.name: kernel_name(i.name) for i in n.interfaces} for n in topology.nodes}
