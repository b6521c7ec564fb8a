"""Which of FRR's daemons a router runs, and with what options: Debian's `daemons` file, or frr.conf alone.

Pure: it knows no process and asks no daemon.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from testbed.devices.base import Complaint, Configs

FILE = "daemons"
ALWAYS = ("zebra", "mgmtd", "staticd")
"""Started whatever the `daemons` file says, zebra first; mgmtd where this FRR has it."""

OPTIONAL = (
    "bgpd",
    "ospfd",
    "ospf6d",
    "isisd",
    "bfdd",
    "ripd",
    "ripngd",
    "pimd",
    "pim6d",
    "pbrd",
    "vrrpd",
    "ldpd",
    "nhrpd",
    "eigrpd",
    "babeld",
    "fabricd",
    "pathd",
)
LOCAL = ("-A", "127.0.0.1")
DEFAULTS: Mapping[str, tuple[str, ...]] = MappingProxyType({"zebra": (*LOCAL, "-s", "90000000")})

SPOKEN = MappingProxyType(
    {
        r"router bgp\b": "bgpd",
        r"router ospf( \d+)?( vrf \S+)?\s*$": "ospfd",
        r"router ospf6\b": "ospf6d",
        r"router isis\b": "isisd",
        r"router openfabric\b": "fabricd",
        r"router eigrp\b": "eigrpd",
        r"router babel\b": "babeld",
        r"router rip\b": "ripd",
        r"router ripng\b": "ripngd",
        r"bfd\b": "bfdd",
        r"mpls ldp\b": "ldpd",
        r"pbr-map\b": "pbrd",
        r"segment-routing\b": "pathd",
        r" +vrrp \d": "vrrpd",
        r" +ip pim\b": "pimd",
        r" +ipv6 pim\b": "pim6d",
        r" +ip nhrp\b": "nhrpd",
    }
)
"""What frr.conf says that only one daemon understands."""

FOREGROUND = frozenset({"-d", "--daemon"})
"""Left out: a shadow's daemons stay in the foreground, whose end is seen."""

REFUSED_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "-N": "a path of its own, but every node has its own /run",
        "--pathspace": "a path of its own, but every node has its own /run",
        "-f": "a file of its own; the shadow reads frr.conf",
        "--config_file": "a file of its own; the shadow reads frr.conf",
        "-i": "a process id file, which nobody here reads",
        "--pid_file": "a process id file, which nobody here reads",
        "-z": "a zebra socket of its own",
        "--socket": "a zebra socket of its own",
        "-u": "an account; all of a shadow's are the caller's",
        "--user": "an account; all of a shadow's are the caller's",
        "-g": "a group; all of a shadow's are the caller's",
        "--group": "a group; all of a shadow's are the caller's",
        "-C": "a trial run",
        "--dryrun": "a trial run",
        "-t": "a terminal",
        "--terminal": "a terminal",
        "--vty_socket": "a socket path of its own",
    }
)
REFUSED_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "_wrap": "a program around a daemon",
        "_instances": "several instances of one daemon",
    }
)
_SETTING = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)")


@dataclass(frozen=True, slots=True)
class Daemons:
    """Daemons to run beside those of ALWAYS, in a fixed order, and every daemon's own options."""

    asked: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def argv(self, daemon: str) -> list[str]:
        """The options a daemon is started with."""
        return list(self.options.get(daemon, DEFAULTS.get(daemon, LOCAL)))


def daemons_of(configs: Configs) -> Daemons:
    """What to start: the `daemons` file, or where the lab has none, what frr.conf speaks of."""
    if FILE in configs:
        return _read(configs[FILE].decode(errors="replace"))[0]
    text = configs.get("frr.conf", b"").decode(errors="replace")
    found = {daemon for words, daemon in SPOKEN.items() if re.search(rf"^{words}", text, re.M)}
    return Daemons(tuple(d for d in OPTIONAL if d in found))


def check_daemons(configs: Configs) -> list[Complaint]:
    """What of a `daemons` file a shadow cannot honour, each with its line."""
    return _read(configs.get(FILE, b"").decode(errors="replace"))[1]


def _read(text: str) -> tuple[Daemons, list[Complaint]]:
    asked, complaints = set[str](), list[Complaint]()
    options: dict[str, tuple[str, ...]] = {}
    shared: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), start=1):
        setting = _SETTING.match(line)
        if setting is None:
            continue
        name = setting[1]
        try:
            words = tuple(shlex.split(" ".join(shlex.split(setting[2], comments=True))))
        except ValueError as error:
            complaints.append(Complaint(FILE, number, f"{name}: {error}"))
            continue
        daemon, _, what = name.rpartition("_")
        if name in OPTIONAL and words[:1] in (("yes",), ("true",), ("1",)):
            asked.add(name)
        elif daemon in (*ALWAYS, *OPTIONAL) and what == "options":
            options[daemon] = tuple(word for word in words if word not in FOREGROUND)
            complaints += _refused(name, words, number)
        elif name == "frr_global_options":
            shared += tuple(word for word in words if word not in FOREGROUND)
            complaints += _refused(name, words, number)
        elif name == "frr_profile" and words:
            shared += ("-F", words[0])
        elif words and (why := REFUSED_SETTINGS.get(f"_{what}")):
            complaints.append(Complaint(FILE, number, f"{name} asks for {why}, which a shadow has not"))
    every = (*ALWAYS, *OPTIONAL)
    whole = {d: (*shared, *options.get(d, DEFAULTS.get(d, LOCAL))) for d in every if shared or d in options}
    return Daemons(tuple(d for d in OPTIONAL if d in asked), whole), complaints


def _refused(name: str, words: Sequence[str], number: int) -> list[Complaint]:
    plain = [word.split("=")[0] for word in words]
    return [
        Complaint(FILE, number, f"{name}: {word} asks for {REFUSED_OPTIONS[word]}")
        for word in plain
        if word in REFUSED_OPTIONS
    ]
