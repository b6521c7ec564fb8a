"""What an `exec` line of a containerlab file means: an address, a route, settings, a plain command, or nothing here.

Pure: words in, a value out; nothing here runs. This file may not know nodes or links.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath
from typing import TypeAlias

from topologies.model import IpInterface, Route

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_SHELL_WORDS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "2>", "2>&1", "&>"})
_EVERYWHERE = {"4": "0.0.0.0/0", "6": "::/0"}


@dataclass(frozen=True, slots=True)
class AddAddress:
    """`ip addr add A/L dev I`."""

    interface: str
    address: IpInterface


@dataclass(frozen=True, slots=True)
class AddRoute:
    """`ip route add N via G`."""

    route: Route


@dataclass(frozen=True, slots=True)
class Settings:
    """`sysctl -w name=value`."""

    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """Any other program with its words."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotDone:
    """A line that cannot be carried out, and why."""

    why: str


Meaning: TypeAlias = AddAddress | AddRoute | Settings | Command | NotDone


def meaning(line: str) -> Meaning:
    """What one line means, split into words as containerlab splits it, without a shell."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        return NotDone(f"it cannot be split into words ({error})")
    if not words or any("\0" in word for word in words):
        return NotDone("there is no command in it")
    if needs_shell(words):
        return NotDone("it needs a shell, and nothing from outside reaches one; write its commands one a line")
    match PurePosixPath(words[0]).name:
        case "ip":
            return _ip(words) or Command(tuple(words))
        case "sysctl":
            return _sysctl(words) or Command(tuple(words))
        case _:
            return Command(tuple(words))


def needs_shell(words: Sequence[str]) -> bool:
    """Whether words only have their meaning in a shell."""
    calls = PurePosixPath(words[0]).name in _SHELLS and any(re.fullmatch(r"-\w*c", word) for word in words[1:])
    return calls or not _SHELL_WORDS.isdisjoint(words)


def _ip(words: Sequence[str]) -> Meaning | None:
    rest, family = list(words[1:]), "4"
    while rest and rest[0] in ("-4", "-6"):
        family = rest.pop(0)[1]
    if len(rest) < 2:
        return None
    what, verb, *rest = rest
    if what in ("a", "addr", "address") and verb in ("a", "add", "replace"):
        return _address(rest)
    if what in ("r", "ro", "route"):
        if verb in ("a", "add", "replace"):
            return _route(rest, family)
        if verb in ("d", "del", "delete") and rest[:1] == ["default"]:
            return NotDone("a shadow has no management network, and so no default route to delete")
    return None


def _address(words: Sequence[str]) -> AddAddress | None:
    """Only the plain form: anything further (a label, a scope, a peer) is for the kernel."""
    match [word for word in words if word not in ("brd", "broadcast", "+")]:
        case [address, "dev", interface] | ["dev", interface, address] if "/" in address:
            try:
                return AddAddress(interface, ip_interface(address))
            except ValueError:
                return None
    return None


def _route(words: Sequence[str], family: str) -> AddRoute | None:
    match list(words):
        case [to, "via", gateway] | [to, "via", gateway, "dev", _] | [to, "dev", _, "via", gateway]:
            try:
                via = ip_address(gateway)
                network = ip_network(_EVERYWHERE[str(via.version)] if to == "default" else to)
            except ValueError:
                return None
            same = network.version == via.version and (family == "4" or via.version == 6)
            return AddRoute(Route(network, via)) if same else None
    return None


def _sysctl(words: Sequence[str]) -> Settings | None:
    rest = [word for word in words[1:] if word not in ("-w", "-q", "--write", "--quiet", "-e")]
    joined = " ".join(rest) if len(rest) == 3 and rest[1] == "=" else None
    pairs = [(joined or word).partition("=") for word in (rest[:1] if joined else rest)]
    if not pairs or any(not sign or name.startswith("-") or "\n" in name + value for name, sign, value in pairs):
        return None
    return Settings(tuple((name.strip(), value.strip()) for name, _, value in pairs))
