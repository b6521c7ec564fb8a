"""A topology made real: built in a sandbox, ready by protocol state, reconfigured live, read for blame.

It knows devices and the network, but no traffic, no change format and no verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.box import NodeBox
from testbed.devices.base import Complaint, Configs, Device, Forgets, Reading
from testbed.devices.daemon_cpu import cpu_readings
from testbed.errors import InvalidInput, NotReady
from testbed.network.addressing import add_routes, put_back_addresses, set_addresses
from testbed.network.fresh_rates import is_rate_only, limit_rates
from testbed.network.half_open import end_half_open
from testbed.network.impairment import Engine, Impairer, LineReport
from testbed.network.link import Port, Veth, kernel_name, set_mtu
from testbed.network.mininet_api import ShadowNet
from testbed.network.namespace import NODES
from testbed.network.neighbours import cannot_solicit
from testbed.network.unlinked import add_unlinked
from topologies.model import Impairment, Link, LinkEnd, Node, Topology

POLL_SECONDS = 0.1
STABLE_READINGS = 3
PROGRAM = "program"
"""A node's own programs are known to its box as program0, program1 and so on."""

IPV6_LEAST_MTU = 1280
"""Below it the kernel takes IPv6 from an interface, with addresses and routes."""


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
    impairer: Impairer
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
        started, told = time.monotonic(), ""
        while True:
            lack = self._lack()
            if lack is None and self._still():
                return time.monotonic() - started
            lack = lack or "routes to hold still"
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
                add_routes(namespace, near, self.topology.node(node).interfaces, anew=True)
        if self.egress[node, interface] != egress:
            self.egress[node, interface] = egress
            self.impairer.apply(port, egress)

    def readings(self) -> dict[str, Sequence[Reading]]:
        """Counters and state of every node."""
        return {
            name: [*self.device(name).readings(box, self.configs[name]), *cpu_readings(box.processes)]
            for name, box in self.boxes.items()
        }

    def impairments(self) -> Mapping[tuple[str, str], LineReport]:
        """(node, interface) to what impaired that direction, and with what error, since this was asked last."""
        return self.impairer.reports()

    def forget(self) -> None:
        """Drop learnt state in every node and begin chance anew, so that windows start alike."""
        self.impairer.forget()
        for name, box in self.boxes.items():
            end_half_open(box.namespace)
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
        lack = next((state.waiting_for for state in states if not state.ready), None)
        return lack or self._silent_in_ipv6()

    def _still(self) -> bool:
        """Whether no route changes for a while; looked at without asking the devices, which costs more than routes."""
        before = self._routes()
        for _ in range(STABLE_READINGS):
            time.sleep(POLL_SECONDS)
            if self._routes() != before:
                return False
        return True

    def _silent_in_ipv6(self) -> str | None:
        speakers = [
            box
            for box in self.boxes.values()
            if any(address.version == 6 for interface in box.node.interfaces for address in interface.addresses)
        ]
        waits = ((box.node.name, cannot_solicit(box.namespace)) for box in speakers)
        return next((f"{node}: a link-local address on {name}" for node, name in waits if name), None)

    def _routes(self) -> tuple[tuple[str, str], ...]:
        routers = [box for box in self.boxes.values() if box.processes]
        return tuple(route for box in routers for route in sorted(box.kernel.routes().items()))


@contextmanager
def built(
    topology: Topology,
    devices: Mapping[str, Device],
    log_directory: Path,
    engine: Engine = Engine.AUTO,
    seed: int = 0,
    folder: str = NODES,
) -> Iterator[Shadow]:
    """Build the shadow of a topology in the current sandbox; it is gone when the block ends.

    `seed` makes loss and the like on links repeatable, `engine` says what does them, `folder` keeps the nodes'
    private files apart from another shadow's in the same sandbox.  Raises InvalidInput when a
    daemon's own checker refuses the lab's file, Unsupported when this kernel lacks what the lab asks for,
    CommandFailed when a daemon does not start.
    """
    log_directory.mkdir(parents=True, exist_ok=True)
    net = ShadowNet(folder)
    impairer = Impairer(engine, seed)
    try:
        boxes = {n.name: _box(net, n, devices[n.kind], log_directory) for n in topology.nodes}
        configs: dict[str, Configs] = {
            n.name: {file: path.read_bytes() for file, path in n.configs.items()} for n in topology.nodes
        }
        shadow = Shadow(topology, devices, net, boxes, configs, {}, {}, impairer)
        _cable(shadow)
        _add_unlinked(shadow)
        for node in topology.nodes:
            set_addresses(boxes[node.name].namespace, node.interfaces, node.prefixes)
            net.tell_addresses(node.name, node.interfaces)
        for node in topology.nodes:
            _refuse_bad_files(shadow, node)
            shadow.device(node.name).start(boxes[node.name], configs[node.name])
        for node in topology.nodes:
            add_routes(boxes[node.name].namespace, node.routes, node.interfaces)
        for node in topology.nodes:
            _begin(boxes[node.name])
        yield shadow
    finally:
        impairer.abandon()
        net.close()


def _box(net: ShadowNet, node: Node, device: Device, log_directory: Path) -> NodeBox:
    switch = not any(interface.addresses for interface in node.interfaces)
    return NodeBox(node, net.add(node.name, device.directories, switch=switch).namespace, log_directory)


def _add_unlinked(shadow: Shadow) -> None:
    """VLANs, VRFs, and ends of links that the lab does not have, which lead into the dark."""
    linked = {(end.node, end.interface) for link in shadow.topology.links for end in (link.a, link.b)}
    for node in shadow.topology.nodes:
        plain = [i for i in node.interfaces if i.name != "lo" and (node.name, i.name) not in linked]
        if plain or any(i.vrf for i in node.interfaces):
            add_unlinked(shadow.boxes[node.name].namespace, node.interfaces, shadow.net.dark if plain else None)


def _cable(shadow: Shadow) -> None:
    shadow.net.connect([_veth(shadow, link) for link in shadow.topology.links])
    rates = []
    for link in shadow.topology.links:
        for end in (link.a, link.b):
            port = Port(shadow.boxes[end.node].namespace, end.interface)
            if is_rate_only(end.egress):
                rates.append((port, end.egress))
            elif end.egress != Impairment():
                shadow.impairer.apply(port, end.egress)
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
