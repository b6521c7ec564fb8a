"""What the kernel lets a run make: each thing is made in a sandbox of ours and read back, nothing is assumed.

All of it vanishes with the sandbox.  Limits and installed programs are not its matter.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import resource
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testbed.doctor.commands import Said, ask
from testbed.doctor.rows import Row, State, judged
from testbed.errors import Unsupported
from testbed.lab_kernel import inside
from testbed.sandbox import SCRATCH, Sandbox, mount

OTHER_KERNEL = "testbed lab run -- COMMAND   (boots a kernel that has it)"
A, B = "probe0", "probe1"

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SOL_PACKET, PACKET_RX_RING, PACKET_VERSION, TPACKET_V3 = 263, 5, 10, 2
BLOCK_OCTETS, BLOCKS, FRAME_OCTETS = 65536, 4, 2048


@dataclass(frozen=True, slots=True)
class Made:
    """A capability tried with programs: any of `ways` is made, then `shown` must match `expected`."""

    capability: str
    ways: tuple[tuple[tuple[str, ...], ...], ...]
    shown: tuple[str, ...]
    expected: str
    needed_for: str
    package: str
    modules: str
    demo: bool = False
    given: str = ""

    def tried(self) -> Row:
        """Make it and read it back."""
        first: Said | None = None
        for way in self.ways:
            answers = [ask(argv, self.given) for argv in way]
            refused = next((answer for answer in answers if answer.status != 0), None)
            read = refused or ask(self.shown)
            found = None if refused else re.search(self.expected, read.text)
            if found:
                return self._row(State.WORKS, " ".join(found[0].split()))
            first = first or read
        seen = first.first_line() if first else "not tried"
        return self._row(State.MISSING, seen, self._remedy(first is not None and first.status is None))

    def _remedy(self, absent: bool) -> str:
        if absent:
            return f"sudo apt-get install {self.package}"
        absent_modules = [name for name in self.modules.split() if not Path("/sys/module", name).exists()]
        loadable = ask(("modprobe", "--dry-run", "--quiet", "--all", *absent_modules)).status == 0
        if absent_modules and loadable:
            return f"sudo modprobe --all {' '.join(absent_modules)}"
        return "use the machine's own kernel: this User-mode Linux was built without it" if inside() else OTHER_KERNEL

    def _row(self, state: State, seen: str, remedy: str = "") -> Row:
        return Row("kernel", self.capability, state, seen, self.needed_for, remedy, self.demo)


def _words(*lines: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(line.split()) for line in lines)


DEVICES = (
    Made(
        "veth",
        (_words(f"ip link add {A} type veth peer name {B}", f"ip link set {A} up", f"ip link set {B} up"),),
        ("ip", "-d", "link", "show", A),
        r"veth",
        "every link",
        "iproute2",
        "veth",
        demo=True,
    ),
    Made(
        "bridge",
        (_words("ip link add br0 type bridge"),),
        ("ip", "-d", "link", "show", "br0"),
        r"\bbridge\b",
        "switches",
        "iproute2",
        "bridge",
        demo=True,
    ),
    Made(
        "bridge VLAN filtering",
        (_words("ip link add br1 type bridge vlan_filtering 1"),),
        ("ip", "-d", "link", "show", "br1"),
        r"vlan_filtering 1",
        "switches with VLANs",
        "iproute2",
        "bridge",
    ),
    Made(
        "VLAN interfaces",
        (_words(f"ip link add link {A} name {A}.5 type vlan id 5"),),
        ("ip", "-d", "link", "show", f"{A}.5"),
        r"vlan protocol 802.1Q id 5",
        "interfaces with a tag",
        "iproute2",
        "8021q",
    ),
    Made(
        "VRF",
        (_words("ip link add vrf0 type vrf table 10"),),
        ("ip", "-d", "link", "show", "vrf0"),
        r"vrf table 10",
        "routers with VRFs",
        "iproute2",
        "vrf",
    ),
    Made(
        "dummy interfaces",
        (_words("ip link add dummy0 type dummy"), _words("ip link add dummy9 type dummy")),
        ("ip", "-d", "link", "show", "type", "dummy"),
        r"dummy\d",
        "labs that add loopbacks",
        "iproute2",
        "dummy",
    ),
    Made(
        "Open vSwitch datapath",
        (_words("ovs-dpctl add-dp probedp"),),
        ("ovs-dpctl", "show"),
        r"probedp",
        "nodes of kind ovs",
        "openvswitch-switch",
        "openvswitch",
    ),
)

QUEUES = (
    Made(
        "tbf",
        (_words(f"tc qdisc add dev {A} root tbf rate 10mbit burst 32kb limit 64kb"),),
        ("tc", "qdisc", "show", "dev", A),
        r"tbf \S+ root .*?rate 10Mbit",
        "rates of links",
        "iproute2",
        "sch_tbf",
        demo=True,
    ),
    Made(
        "netem",
        (_words(f"tc qdisc add dev {B} root netem delay 50ms loss 1%"),),
        ("tc", "qdisc", "show", "dev", B),
        r"netem \S+ root .*?delay 50ms",
        "delay and loss by the kernel, not by the delay line",
        "iproute2",
        "sch_netem",
    ),
    Made(
        "clsact and mirred",
        tuple(
            _words(
                f"tc qdisc replace dev {A} clsact",
                f"tc filter add dev {A} egress protocol all {match} action mirred egress redirect dev {B}",
            )
            for match in ("matchall", "u32 match u32 0 0")
        ),
        ("tc", "filter", "show", "dev", A, "egress"),
        r"mirred \(Egress Redirect to device \w+\)",
        "mirroring a port by the kernel",
        "iproute2",
        "act_mirred cls_matchall",
    ),
)

RULES = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -m conntrack --ctstate NEW --dport 443 -j DROP\nCOMMIT\n"
NFT = "table inet probe {\n chain c {\n  type filter hook forward priority 0\n  tcp dport 443 counter drop\n }\n}\n"

FILTERS = (
    Made(
        "iptables",
        ((("iptables-restore",),),),
        ("iptables", "-S"),
        r"--dport 443 -j DROP",
        "firewalls",
        "iptables",
        "iptable_filter nf_tables",
        demo=True,
        given=RULES,
    ),
    Made(
        "ip6tables",
        ((("ip6tables-restore",),),),
        ("ip6tables", "-S"),
        r"--dport 443 -j DROP",
        "firewalls with IPv6 rules",
        "iptables",
        "iptable_filter nf_tables",
        given=RULES,
    ),
    Made(
        "nftables",
        ((("nft", "-f", "-"),),),
        ("nft", "list", "table", "inet", "probe"),
        r"tcp dport 443 counter",
        "firewalls with an nftables file",
        "nftables",
        "nf_tables",
        given=NFT,
    ),
    Made(
        "ipset",
        (_words("ipset create probe hash:net", "ipset add probe 192.0.2.0/24"),),
        ("ipset", "list", "probe"),
        r"192\.0\.2\.0/24",
        "rules that name sets",
        "ipset",
        "ip_set_hash_net",
    ),
    Made(
        "rule trace",
        (_words("iptables -t raw -A OUTPUT -d 192.0.2.1 -j TRACE"),),
        ("iptables", "-t", "raw", "-S"),
        r"-j TRACE",
        "naming the rule that met a packet",
        "iptables",
        "xt_TRACE",
    ),
)


def kernel_rows() -> list[Row]:
    """Everything tried inside one sandbox; without a sandbox, one row that says why and that nothing was tried."""
    what, why = "user namespaces", "every run"
    try:
        tried = Sandbox("doctor").call(_all)
    except Unsupported as refusal:
        return [Row("kernel", what, State.MISSING, refusal.what, why, refusal.remedy, demo=True)]
    except OSError as refusal:
        remedy = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        seen = f"made, but without rights inside: {refusal}"
        return [Row("kernel", what, State.MISSING, seen, why, remedy, demo=True)]
    switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    armoured = f", AppArmor's switch is {switch.read_text().strip()}" if switch.exists() else ""
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    return [Row("kernel", what, State.WORKS, f"made as {who}{armoured}", why, demo=True), *tried]


def _all() -> list[Row]:
    rows = [made.tried() for made in (*DEVICES, *QUEUES, *FILTERS)]
    return [
        *rows,
        _tried("packet rings", _ring, "taps that measure", "use a kernel with CONFIG_PACKET", demo=True),
        _tried("TUN", _tun, "OpenVPN, user-space switches", "sudo modprobe tun"),
        _tried("overlay file systems", _overlay, "nodes with files of their own", "use Linux 5.11 or later"),
        _real_time(),
        _open_files(),
    ]


def _tried(capability: str, probe: Callable[[], str], needed_for: str, remedy: str, demo: bool = False) -> Row:
    row = partial(Row, "kernel", capability, needed_for=needed_for, demo=demo)
    try:
        return row(State.WORKS, probe())
    except OSError as refusal:
        return row(State.MISSING, refusal.strerror or str(refusal), remedy=remedy)


def _ring() -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
        tap.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        size = BLOCK_OCTETS * BLOCKS
        request = struct.pack("7I", BLOCK_OCTETS, BLOCKS, FRAME_OCTETS, size // FRAME_OCTETS, 10, 0, 0)
        tap.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        mmap.mmap(tap.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
        version = tap.getsockopt(SOL_PACKET, PACKET_VERSION) + 1
    return f"TPACKET_V{version}, mapped"


def _tun() -> str:
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"probetun", IFF_TUN | IFF_NO_PI))
        socket.if_nametoindex("probetun")
    finally:
        os.close(descriptor)
    return "made through /dev/net/tun"


def _overlay() -> str:
    base = SCRATCH / "overlay"
    lower, upper, work, merged = (base / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower, upper, work, merged):
        folder.mkdir(parents=True)
    (lower / "file").write_text("below")
    mount("overlay", str(merged), "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},userxattr")
    (merged / "file").write_text("above")
    if (lower / "file").read_text() != "below" or (upper / "file").read_text() != "above":
        raise OSError("written through the overlay, but not kept above")
    return "mounted, written, the file below is as it was"


def _real_time() -> Row:
    row = partial(Row, "limits", "real-time priority", needed_for="sending on time when the machine is busy")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        now = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError as refusal:
        command = 'echo "$USER - rtprio 99" | sudo tee /etc/security/limits.d/testbed.conf   (then log in again)'
        return row(State.LIMITED, f"refused: {refusal.strerror}", remedy=command)
    return row(State.WORKS, "SCHED_FIFO 1 taken" if now == os.SCHED_FIFO else "another policy was read back")


def _open_files() -> Row:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    state, seen = judged(soft, 10_000)
    command = 'echo "$USER - nofile 1048576" | sudo tee /etc/security/limits.d/testbed-files.conf   (then log in again)'
    return Row(
        "limits", "open files", state, seen, "thousands of flows at a time", command if state is not State.WORKS else ""
    )
