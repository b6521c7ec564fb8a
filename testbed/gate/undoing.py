"""What must be loaded to take a changed file back, where the old file alone leaves something behind.

`iptables-restore` leaves tables that its file does not speak of, `nft -f` adds to what is there, `ipset restore` keeps
members. Text in, text out; it knows no node and no command.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.devices.nft_text import FILE as NFT
from testbed.devices.nft_text import made_tables
from testbed.devices.packet_filter import FAMILIES, opened, tables

IPSET = "ipset.rules"
FRR = "frr.conf"


def undoing(file: str, old: bytes | None, new: bytes | None) -> bytes | None:
    """What to load so that the node is as the old file makes it, with the new one in force; None: nothing to load.

    `old` None: there was no such file; `new` None: the change took it away, and loading the old one is enough.
    """
    was, now = old or b"", new or b""
    if file in FAMILIES:
        return was + opened(tables(now) - tables(was))
    if file == IPSET:
        return _refilled(was, now)
    return was if file == FRR else old


def undoing_tables(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> bytes:
    """What to give to nft: the tables of a node's files with the change deleted, those of its files before made."""
    texts = {name: text.decode(errors="replace") for name, text in after.items()}
    return _without_tables(made_tables(texts) if NFT in texts else frozenset()) + before.get(NFT, b"")


def set_names(text: bytes) -> frozenset[str]:
    """The sets that a file of ipset makes."""
    words = (line.split() for line in text.decode(errors="replace").splitlines())
    return frozenset(w[1] for w in words if len(w) > 1 and w[0] in ("create", "-N"))


def _without_tables(names: frozenset[str]) -> bytes:
    """Deletes tables, whether or not they are there: one that is made first can always be deleted."""
    lines = []
    for name in sorted(names):
        family, _, table = name.partition("/")
        lines += [f"add table {family} {table}", f"delete table {family} {table}"]
    return "".join(f"{line}\n" for line in lines).encode()


def _refilled(old: bytes, new: bytes) -> bytes:
    """Every set that both files have is emptied before it is filled."""
    both = set_names(old) & set_names(new)
    lines = []
    for line in old.decode(errors="replace").splitlines():
        lines.append(line)
        words = line.split()
        if len(words) > 1 and words[0] in ("create", "-N") and words[1] in both:
            lines.append(f"flush {words[1]}")
    return "".join(f"{line}\n" for line in lines).encode() if both else old
