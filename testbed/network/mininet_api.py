"""A shadow is a Mininet: its API and command line on nodes and links that are ours.

It knows no device.  Mininet's own way of building (a shell and a pty per node, text typed into it,
host-wide clean-up) is replaced by namespaces and netlink; nothing here calls `mn -c` or writes a
host setting.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from mininet.link import Intf, Link
from mininet.net import Mininet
from mininet.node import Node

from testbed.errors import CommandFailed
from testbed.network.link import Port, Veth, kernel_name, lay
from testbed.network.namespace import NODES, Namespace, make_namespace
from testbed.network.rtnl import Batch, is_up
from topologies.model import Interface


class ShadowNode(Node):  # type: ignore[misc]
    """A Mininet node whose namespace is made on a thread, with no shell behind it."""

    def __init__(
        self, name: str, directories: Mapping[str, str] | None = None, folder: str = NODES, **params: Any
    ) -> None:
        self.namespace: Namespace = make_namespace(name, directories or {}, folder)
        super().__init__(name, **params)

    @classmethod
    def setup(cls) -> None:
        """Nothing to look for: Mininet would want its own mnexec and ifconfig."""

    def startShell(self, mnopts: str | None = None) -> None:
        """There is no shell; the attributes that Mininet's command line looks at say "idle"."""
        self.waiting = False
        self.pid = None

    def mountPrivateDirs(self) -> None:
        """Private directories are mounted when the namespace is made."""

    def cmd(self, *args: Any, **kwargs: Any) -> str:
        """Run one command (words, never a shell line) and return what it printed, also when it failed."""
        words = [str(word) for word in args] if len(args) > 1 else shlex.split(str(args[0]))
        try:
            return self.namespace.run(words)
        except CommandFailed as failure:
            return f"{failure.stderr}\n"

    def popen(self, *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start a command inside the node, as Mininet's `popen` does."""
        words = args[0] if isinstance(args[0], list) else shlex.split(" ".join(map(str, args)))
        fds = (self.namespace.net_fd, self.namespace.mount_fd)
        return subprocess.Popen(self.namespace.argv(words), pass_fds=fds, **kwargs)

    def terminate(self) -> None:
        """End the node's processes and let its namespaces go."""
        self.namespace.close()

    def stop(self, deleteIntfs: bool = False) -> None:
        """Same as terminate: the interfaces go with the namespace."""
        self.terminate()


class ShadowInterface(Intf):  # type: ignore[misc]
    """An interface whose addresses were set over netlink; it only answers questions, and goes up and down."""

    def config(self, **params: Any) -> dict[str, Any]:
        """Nothing to type into a shell."""
        return {}

    def ifconfig(self, *args: str) -> str:
        """Take the interface `up` or `down`; anything else is said to be beyond it, as Mininet says errors."""
        namespace: Namespace = self.node.namespace
        change, index = Batch(), namespace.indexes[self.name]
        match args:
            case ("up",):
                change.up(index)
            case ("down",):
                change.down(index)
            case _:
                return f"no ifconfig {' '.join(args)} here: use ip"
        change.send(namespace.line)
        return ""

    def updateIP(self) -> str | None:
        """The address that the lab gives, if it gives one."""
        return self.ip  # type: ignore[no-any-return]

    def isUp(self, setUp: bool = False) -> bool:
        """Whether the kernel has it up; with `setUp` it is brought up first."""
        if setUp:
            self.ifconfig("up")
        namespace: Namespace = self.node.namespace
        return is_up(namespace.line, namespace.indexes[self.name])

    def status(self) -> str:
        """Mininet's words for an interface that is there, or is not."""
        return "OK" if self.name in self.node.namespace.indexes else "MISSING"


class ShadowLink(Link):  # type: ignore[misc]
    """A Mininet link made of one veth pair, in place in both namespaces; `veth` is one that is there already."""

    def __init__(self, node1: ShadowNode, node2: ShadowNode, veth: Veth | None = None, **params: Any) -> None:
        self.veth = veth
        super().__init__(node1, node2, **{**params, "intf": ShadowInterface})

    def makeIntfPair(
        self,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        node1: ShadowNode | None = None,
        node2: ShadowNode | None = None,
        deleteIntfs: bool = True,
    ) -> None:
        """Make the veth pair over netlink, if it was not made with many others."""
        if node1 is None or node2 is None:
            raise TypeError("a shadow link joins two nodes")
        if self.veth is None:
            self.veth = Veth(Port(node1.namespace, intfname1, addr1), Port(node2.namespace, intfname2, addr2))
            lay([self.veth])

    def delete(self) -> None:
        """Remove both ends."""
        if self.veth is not None:
            self.veth.disconnect()
            self.veth = None


class ShadowNet(Mininet):  # type: ignore[misc]
    """A Mininet that builds from our nodes and links and leaves the host alone."""

    def __init__(self, folder: str = NODES) -> None:
        self._folder = folder
        self._dark: Namespace | None = None
        # Mininet.init would raise limits and write the host's sysctls
        Mininet.inited = True
        super().__init__(topo=None, build=False, host=ShadowNode, link=ShadowLink, intf=ShadowInterface)

    def add(self, name: str, directories: Mapping[str, str], *, switch: bool = False) -> ShadowNode:
        """Add a node with its private directories (private name to covered path)."""
        node: ShadowNode = self.addHost(name, ip=None, directories=directories, folder=self._folder)
        if switch:
            # what has no address of its own is not to be pinged
            self.hosts.remove(node)
            self.switches.append(node)
        return node

    @property
    def dark(self) -> Namespace:
        """Where the other ends of unlinked interfaces lie; no node of the network, and made when first wanted."""
        if self._dark is None:
            self._dark = make_namespace("~dark", {}, self._folder)
        return self._dark

    def tell_addresses(self, name: str, interfaces: Sequence[Interface]) -> None:
        """Let Mininet's own questions (`IP()`, `pingall`) know the addresses that were set: the first of each."""
        known = self.nameToNode[name].nameToIntf
        for interface in interfaces:
            mininet_interface = known.get(kernel_name(interface.name))
            if mininet_interface is not None and interface.addresses:
                first = min(interface.addresses, key=lambda address: address.version)
                mininet_interface.ip = str(first.ip)
                mininet_interface.prefixLen = first.network.prefixlen

    def connect(self, cables: Sequence[Veth]) -> None:
        """Add links, all made at once; the ports are those of our nodes."""
        lay(cables)
        for veth in cables:
            a, b = veth.a, veth.b
            self.addLink(
                self.nameToNode[a.namespace.name],
                self.nameToNode[b.namespace.name],
                intfName1=kernel_name(a.name),
                intfName2=kernel_name(b.name),
                veth=veth,
            )

    def close(self) -> None:
        """Stop every node; links go with their namespaces."""
        for node in reversed([*self.hosts, *self.switches]):
            node.terminate()
        if self._dark is not None:
            self._dark.close()
            self._dark = None
        self.hosts.clear()
        self.switches.clear()
        self.links.clear()
