"""One node of a containerlab file, made a node of the model and its files.

    image, kind        which of our kinds it is          exec        addresses, routes, settings, commands
    frr.conf           interface addresses               cmd         a program, for images we know the program of

This file may not know links beyond the node's own ends, nor other nodes but for the addresses they took.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path, PurePosixPath

from topologies.containerlab.binds import Bind, bound
from topologies.containerlab.exec import AddAddress, AddRoute, Command, NotDone, Settings, meaning, needs_shell
from topologies.containerlab.levels import Effective, Line
from topologies.containerlab.links import End
from topologies.containerlab.programs import PROGRAMS, as_one_account
from topologies.frr_addresses import configured_addresses
from topologies.imported import Note
from topologies.located import Problem, nearest
from topologies.model import Interface, IpAddress, IpInterface, Node, Route

RUNNABLE = ("linux", "frr", "bridge", "ovs-bridge")
CAN_BE_RUN = "a kind that can be run: linux (FRR and HAProxy by their image), frr, bridge, ovs-bridge"
FORWARDING = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding")
FRR_STARTERS = frozenset({"frrinit.sh", "watchfrr", "docker-start", "watchfrr.sh"})
MANAGEMENT = "eth0"


@dataclass(slots=True)
class Built:
    """A node with its files, and what was found on the way."""

    node: Node
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """A node while its lines are gone through."""

    path: Path
    keys: Effective
    kind: str
    interfaces: dict[str, list[IpInterface]]
    owners: dict[IpAddress, str]
    files: dict[str, bytes] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    commands: list[tuple[str, ...]] = field(default_factory=list)
    programs: list[tuple[str, ...]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, line: int, what: str, why: str) -> None:
        self.notes.append(Note(self.path, line, what, why))


def built(path: Path, keys: Effective, ends: list[End], owners: dict[IpAddress, str], kinds: frozenset[str]) -> Built:
    """The node of these keys; `owners` are addresses already given, and those of this node are added to it."""
    work = _Work(path, keys, "host", {end.interface: [] for end in ends}, owners)
    work.kind = _kind(work, kinds)
    for end in ends:
        for address in end.addresses:
            _give(work, end.interface, address, keys.line, f"the address {address} of the link")
    _bind(work)
    for line in keys.exec:
        _exec(work, line)
    _sysctls(work)
    _program(work)
    _frr(work)
    macs = {end.interface: end.mac for end in ends}
    node = Node(
        name=keys.name,
        kind=work.kind,
        interfaces=tuple(Interface(name, tuple(found), macs.get(name)) for name, found in work.interfaces.items()),
        routes=tuple(work.routes),
        programs=tuple(work.programs),
        commands=tuple(work.commands),
    )
    return Built(node, work.files, work.notes, work.problems)


def _kind(work: _Work, kinds: frozenset[str]) -> str:
    keys = work.keys
    written, image = keys.word("kind"), keys.word("image").lower()
    if not written:
        work.problems.append(Problem(work.path, keys.line, 1, f"node {keys.name!r} without a kind", CAN_BE_RUN))
    elif written not in RUNNABLE:
        found = f"node {keys.name!r} of kind {written!r}"
        expected = f"{CAN_BE_RUN} ({nearest(written, RUNNABLE)})"
        work.problems.append(Problem(work.path, keys.words["kind"].line, 1, found, expected))
    if written == "bridge":
        return "bridge"
    if written == "ovs-bridge":
        if "openvswitch" in kinds:
            return "openvswitch"
        work.note(
            keys.words["kind"].line, "kind ovs-bridge", "Open vSwitch is not among the kinds here; a Linux bridge"
        )
        return "bridge"
    if written == "frr" or "frr" in image:
        return "router"
    if "haproxy" in image:
        return "loadbalancer"
    forwards = [line for name, line in keys.sysctls.items() if name in FORWARDING and line.text == "1"]
    forwards += [line for line in keys.exec if _forwards(line.text)]
    if forwards:
        work.note(
            forwards[0].line, "a linux node that forwards", "it becomes of kind firewall, a forwarding Linux node"
        )
        return "firewall"
    return "host"


def _forwards(line: str) -> bool:
    match meaning(line):
        case Settings(values):
            return any(name.replace("/", ".") in FORWARDING and value == "1" for name, value in values)
        case Command(argv):
            return PurePosixPath(argv[0]).name in ("iptables", "ip6tables", "nft") and "FORWARD" in argv
    return False


def _give(work: _Work, interface: str, address: IpInterface, line: int, what: str) -> bool:
    """Let the model own an address; False, with a note, when another node has it."""
    owner = work.owners.get(address.ip)
    if owner is not None and not address.ip.is_link_local:
        if address not in work.interfaces.get(interface, ()):
            work.note(line, what, f"{owner} has this address too, and a lab's addresses have one owner")
            return False
        return True
    if not address.ip.is_link_local:
        work.owners[address.ip] = f"{work.keys.name}:{interface}"
    work.interfaces.setdefault(interface, []).append(address)
    return True


def _bind(work: _Work) -> None:
    found = bound(work.path, work.kind, list(work.keys.binds.values()))
    work.files, work.problems = found.files, work.problems + found.problems
    work.notes += found.notes


def _exec(work: _Work, line: Line) -> None:
    what = f"exec {line.text!r}"
    if work.kind in ("bridge", "openvswitch"):
        work.note(line.line, what, "containerlab runs a bridge's commands on the machine itself; not run")
        return
    match meaning(line.text):
        case NotDone(why):
            work.note(line.line, what, why)
        case AddAddress(interface, address):
            if interface in work.interfaces or interface == "lo":
                _give(work, interface, address, line.line, what)
            elif interface == MANAGEMENT:
                work.note(line.line, what, "a shadow has no management network; left out")
            else:
                work.commands.append(tuple(shlex.split(line.text)))
        case AddRoute(route):
            if _reachable(work, route.via):
                work.routes.append(route)
            else:
                work.note(line.line, what, f"{route.via} is in no network of the node's links; left out")
        case Settings(values):
            _settings(work, dict(values), line.line)
        case Command(argv):
            if work.kind == "router" and (PurePosixPath(argv[0]).name in FRR_STARTERS or argv == ("vtysh", "-b")):
                work.note(line.line, what, "FRR is started, and its configuration read, without it")
            else:
                work.commands.append(argv)


def _reachable(work: _Work, gateway: IpAddress) -> bool:
    networks = [address.network for found in work.interfaces.values() for address in found]
    scoped = isinstance(gateway, IPv6Address) and gateway.is_link_local
    return not scoped and any(gateway.version == network.version and gateway in network for network in networks)


def _settings(work: _Work, values: Mapping[str, str], line: int) -> None:
    for name, value in values.items():
        if name.startswith(("net.", "net/")) and "=" not in name and "\n" not in name + value:
            work.settings[name] = value
        else:
            work.note(line, f"sysctl {name}={value}", "it is the machine's and not of one node's network")


def _sysctls(work: _Work) -> None:
    before = dict(work.settings)
    work.settings.clear()
    for name, line in work.keys.sysctls.items():
        _settings(work, {name: line.text}, line.line)
    work.settings |= before
    if work.settings and work.kind != "openvswitch":
        work.files["sysctl.conf"] = "".join(f"{name} = {value}\n" for name, value in work.settings.items()).encode()


def _program(work: _Work) -> None:
    """The program of a node, where the image is one whose program we know; the daemons of our kinds start anyway."""
    keys = work.keys
    image = keys.word("image")
    program = PROGRAMS.get(image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower())
    started = [key for key in ("entrypoint", "cmd") if key in keys.words]
    if work.kind not in {"host", "firewall"}:
        for key in started:
            work.note(keys.words[key].line, f"{key} {keys.word(key)!r}", f"a {work.kind} starts its own daemons")
    elif program is None:
        if image:
            work.note(keys.words["image"].line, f"image {image!r}", "no container is run: the node is a Linux network")
        for key in started:
            why = "programs of an image that is not run are not started; give the node a `run`"
            work.note(keys.words[key].line, f"{key} {keys.word(key)!r}", why)
    elif "cmd" not in started:
        why = f"no container is run, and without a cmd {program} is not started"
        work.note(keys.words["image"].line, f"image {image!r}", why)
    else:
        _start(work, program)
    if keys.env and not work.programs:
        first = next(iter(keys.env.values()))
        work.note(first.line, f"env {', '.join(keys.env)}", "no program of this node would read it")


def _start(work: _Work, program: str) -> None:
    line = work.keys.words["cmd"]
    try:
        entry, words = shlex.split(work.keys.word("entrypoint")), shlex.split(line.text)
    except ValueError as error:
        work.note(line.line, f"cmd {line.text!r}", f"it cannot be split into words ({error})")
        return
    argv = [*entry, *words]
    if not entry and (not words or words[0].startswith("-")):
        argv = [program, *words]
    if not all(argv) or any("\0" in word for word in argv) or needs_shell(argv):
        work.note(line.line, f"cmd {line.text!r}", "it needs a shell, and nothing from outside reaches one")
        return
    named = [f"{name}={value.text}" for name, value in work.keys.env.items() if name and "=" not in name]
    adapted = as_one_account(argv)
    if adapted != tuple(argv):
        work.note(line.line, f"cmd {line.text!r}", f"a node has one account, so it is: {shlex.join(adapted)}")
    work.programs.append((*(("env", *named) if named else ()), *adapted))


def _frr(work: _Work) -> None:
    """A router's configuration file, and in it the addresses that the model must know."""
    startup = work.keys.words.get("startup_config")
    if startup is not None:
        if work.kind != "router" or "frr.conf" in work.files:
            why = "only a router without an frr.conf takes it" if work.kind != "router" else "frr.conf is bound already"
            work.note(startup.line, f"startup-config {startup.text!r}", why)
        elif "\n" in startup.text:
            work.files["frr.conf"] = startup.text.encode()
        else:
            found = bound(work.path, "router", [Bind(f"{startup.text}:/etc/frr/frr.conf", startup.line)])
            work.files |= found.files
            work.notes += found.notes
            work.problems += found.problems
    if work.kind != "router" or "frr.conf" not in work.files:
        return
    for one in configured_addresses(work.files["frr.conf"].decode(errors="replace")):
        what = f"frr.conf line {one.line}: {one.address} at {one.interface}"
        if one.interface not in work.interfaces and one.interface != "lo":
            work.note(work.keys.line, what, "no link ends at this interface; left to FRR alone")
        elif one.address not in work.interfaces.get(one.interface, ()):
            _give(work, one.interface, one.address, work.keys.line, what)
