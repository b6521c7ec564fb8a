"""Where the lab's own devices end TLS, where they begin it anew, and which certificates their clients know.

Pure: configurations in, addresses and ports out.  It knows HAProxy's `bind` and `server` lines; what only passes TLS
on ends none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise

from testbed.placement import TCP, translated
from topologies.model import Topology

Files = Mapping[str, Mapping[str, bytes]]
"""Every node's configuration files."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_ANY = ("", "*", "0.0.0.0", "::", "[::]")
_FAMILY = re.compile(r"^(ipv[46]|tcp[46]?)@")
_MOST_TRANSLATIONS = 4
_SECTIONS = ("defaults", "listen", "backend", "frontend", "global")
_NAMES = ("verifyhost", "sni", "check-sni")
_SAID = re.compile(r"^str\((.*)\)$")


@dataclass(frozen=True, slots=True)
class Bind:
    """A node's address ("" for any of its own) and ports at which it ends TLS."""

    node: str
    address: str
    ports: range


@dataclass(frozen=True, slots=True)
class Server:
    """Where TLS is begun anew, and the names that the certificate there is asked for."""

    address: str
    port: int
    names: tuple[str, ...] = ()


def ends_of_tls(configs: Files) -> list[Bind]:
    """Every `bind … ssl` of every haproxy.cfg."""
    return [bind for node, files in configs.items() for bind in _binds(node, files.get("haproxy.cfg", b""))]


def ends_tls(topology: Topology, configs: Files) -> Callable[[str, int], bool]:
    """Tells whether what is sent to an address and port meets a device that ends TLS, destination NAT included."""
    binds = ends_of_tls(configs)

    def ends(address: str, port: int) -> bool:
        for _ in range(_MOST_TRANSLATIONS):
            owner = topology.owner(address)
            if owner is not None and any(_takes(bind, owner.name, address, port) for bind in binds):
                return True
            new = _translated(configs, address, port)
            if new is None or new == (address, port):
                return False
            address, port = new
        return False

    return ends if binds else lambda _address, _port: False


def begun_anew(configs: Files) -> list[Server]:
    """Every server to which some haproxy.cfg speaks TLS, at its address."""
    found = []
    for files in configs.values():
        default = False
        for words in _lines(files.get("haproxy.cfg", b"")):
            if words[0] in _SECTIONS:
                default = False
            if words[0] == "default-server":
                default = default or "ssl" in words
            if words[0] == "server" and len(words) > 2 and ("ssl" in words[3:] or default):
                address, _, port = words[2].rpartition(":")
                if port.isdigit():
                    names = [_SAID.sub(r"\1", value) for option, value in pairwise(words) if option in _NAMES]
                    found.append(Server(_plain(_FAMILY.sub("", address)), int(port), tuple(names)))
    return found


def certificates(configs: Files) -> list[str]:
    """Every certificate in the lab's own files, as PEM, each once."""
    found = dict.fromkeys(
        pem.decode("ascii", "replace")
        for files in configs.values()
        for content in files.values()
        for pem in _CERTIFICATE.findall(content)
    )
    return list(found)


def _binds(node: str, text: bytes) -> Iterator[Bind]:
    for words in _lines(text):
        if words[0] != "bind" or len(words) < 2 or "ssl" not in words[2:]:
            continue
        for one in words[1].split(","):
            address, _, ports = _FAMILY.sub("", one).rpartition(":")
            low, dash, high = ports.partition("-")
            if low.isdigit() and (high.isdigit() or not dash):
                yield Bind(node, "" if address in _ANY else _plain(address), range(int(low), int(high or low) + 1))


def _takes(bind: Bind, node: str, address: str, port: int) -> bool:
    return bind.node == node and port in bind.ports and bind.address in ("", address)


def _translated(configs: Files, address: str, port: int) -> tuple[str, int] | None:
    name = "iptables.rules" if ":" not in address else "ip6tables.rules"
    for files in configs.values():
        found = translated(files.get(name, b""), address, port, TCP)
        if found is not None:
            return found
    return None


def _lines(text: bytes) -> Iterator[Sequence[str]]:
    for line in text.decode(errors="replace").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = line.split()
        if words:
            yield words


def _plain(address: str) -> str:
    try:
        return str(ip_address(address.strip("[]")))
    except ValueError:
        return address
