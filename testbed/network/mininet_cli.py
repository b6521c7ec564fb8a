"""Mininet's command line on a running shadow: its words, with node commands run on our own namespaces.

It knows no lab and no device.  A line that begins with a node's name is what its user typed for a shell in that node,
and goes to one; a command given as words goes to no shell.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import IO, Any

from mininet.cli import CLI
from mininet.log import error, output, setLogLevel

from testbed.network.mininet_api import ShadowNet, ShadowNode

NO_TERMINALS = "*** no windows here: run the command at this prompt, as in: h1 vtysh\n"
IPERF_SECONDS = 5


class ShadowCli(CLI):  # type: ignore[misc]
    """Mininet's prompt; what would need a shell and a pty a node is done through namespaces."""

    prompt = "testbed> "

    def __init__(self, net: ShadowNet, commands: IO[str]) -> None:
        """Read commands until `exit` or the end of input."""
        setLogLevel("output")
        super().__init__(net, stdin=commands)

    def default(self, line: str) -> None:
        """Run what follows a node's name in that node; other nodes' names stand for their addresses."""
        first, args, line = self.parseline(line)
        if first not in self.mn:
            error(f"*** Unknown command: {line}\n")
        elif not args:
            error(f"*** Please enter a command for node: {first} <cmd>\n")
        else:
            in_node(self.mn[first], ["sh", "-c", " ".join(addressed(self.mn, args.split(" ")))])

    def do_net(self, _line: str) -> None:
        """List every node with its links, as Mininet does."""
        for node in self.mn.values():
            links = [(own, own.link.intf2 if own.link.intf1 is own else own.link.intf1) for own in node.intfList()]
            output(" ".join([node.name, *(f"{_full(own)}:{_full(peer)}" for own, peer in links)]), "\n")

    def do_links(self, _line: str) -> None:
        """List every link and whether both ends are there."""
        for link in self.mn.links:
            output(f"{_full(link.intf1)}<->{_full(link.intf2)} {link.status()}\n")

    def do_iperf(self, line: str) -> None:
        """Measure TCP goodput between two hosts: iperf h1 h2 (the first and the last host by default)."""
        names = line.split() or [self.mn.hosts[0].name, self.mn.hosts[-1].name]
        if len(names) != 2 or not all(name in self.mn for name in names):
            error("*** two hosts are wanted: iperf h1 h2\n")
            return
        client, server = (self.mn[name] for name in names)
        output(f"*** Goodput from {client} to {server}: {goodput(client, server)}\n")

    def do_xterm(self, line: str, term: str = "xterm") -> None:
        """Not here: a shadow has no windows."""
        error(NO_TERMINALS)

    do_gterm = do_xterm
    do_x = do_xterm
    do_iperfudp = do_xterm

    def do_dpctl(self, line: str) -> None:
        """Not here: switches are bridges."""
        error("*** no OpenFlow controller here: in a node of kind openvswitch, run ovs-ofctl\n")


def _full(interface: Any) -> str:
    """`h1-eth0`: production's names are unique in a node only, Mininet's bear the node's."""
    node = interface.node.name
    return str(interface.name) if interface.name.startswith(f"{node}-") else f"{node}-{interface.name}"


def in_node(node: ShadowNode, words: Sequence[str]) -> int:
    """Run a program in a node on this terminal, to its end; its exit status."""
    fds = (node.namespace.net_fd, node.namespace.mount_fd)
    status = subprocess.run(node.namespace.argv(words), pass_fds=fds, check=False).returncode
    return status if status >= 0 else 128 - status


def addressed(net: ShadowNet, words: Sequence[str]) -> list[str]:
    """The words with names of nodes replaced by their addresses, as Mininet does it."""
    return [(word in net and net[word].intfs and net[word].IP()) or word for word in words]


def prompt_words() -> list[str]:
    """The words that the prompt knows besides the nodes' names."""
    return sorted(name.removeprefix("do_") for name in dir(ShadowCli) if name.startswith("do_") and name != "do_EOF")


def one_command(net: ShadowNet, words: Sequence[str]) -> int:
    """One command line of the prompt, and its exit status: a program's own, or 1 where `pingall` lost a packet.

    Raises KeyError when it begins with neither a node's name nor a word of the prompt.
    """
    setLogLevel("output")
    first, *rest = words
    if first in net and rest:
        return in_node(net[first], addressed(net, rest))
    if first == "pingall":
        return 1 if net.pingAll(*rest) else 0
    if first not in prompt_words():
        raise KeyError(first)
    known = getattr(ShadowCli, f"do_{first}")
    quiet = ShadowCli.__new__(ShadowCli)
    quiet.mn, quiet.locals = net, {"net": net}
    known(quiet, " ".join(rest))
    return 0


def goodput(client: ShadowNode, server: ShadowNode) -> str:
    """What iperf3 measures between two nodes in a few seconds, in words."""
    fds = (server.namespace.net_fd, server.namespace.mount_fd)
    argv, none = server.namespace.argv(["iperf3", "-s", "-1"]), subprocess.DEVNULL
    with subprocess.Popen(argv, pass_fds=fds, stdout=none, stderr=none) as listening:
        try:
            client_words = ["iperf3", "-J", "-t", str(IPERF_SECONDS), "--connect-timeout", "2000", "-c", server.IP()]
            told = json.loads(client.cmd(*client_words))
        except ValueError:
            return "nothing was measured"
        finally:
            listening.terminate()
    if "end" not in told or "sum_received" not in told["end"]:
        return str(told.get("error", "nothing was measured"))
    return f"{told['end']['sum_received']['bits_per_second'] / 1e6:.1f} Mbit/s"
