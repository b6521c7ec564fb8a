"""The text of an nftables rule in iptables' words, so that one file decides what a rule matches.

Pure text.  What has no word there is left out, and counts as a match.
"""

from __future__ import annotations

import re
from types import MappingProxyType

_WORD = re.compile(r'"[^"]*"|[{}]|!=|==|[^\s{}]+')
PORT_PROTOCOLS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite"})
PORTS = MappingProxyType({"sport": "--sports", "dport": "--dports"})
ADDRESSES = MappingProxyType({"saddr": "-s", "daddr": "-d"})
INTERFACES = MappingProxyType({"iif": "-i", "iifname": "-i", "oif": "-o", "oifname": "-o"})
PROTOCOL_OF = frozenset({("meta", "l4proto"), ("ip", "protocol"), ("ip6", "nexthdr")})
TARGETS = MappingProxyType(
    {
        "accept": "ACCEPT",
        "drop": "DROP",
        "reject": "REJECT",
        "return": "RETURN",
        "queue": "NFQUEUE",
        "snat": "SNAT",
        "dnat": "DNAT",
        "masquerade": "MASQUERADE",
        "redirect": "REDIRECT",
        "tproxy": "TPROXY",
        "notrack": "NOTRACK",
    }
)

LAST = frozenset({"snat", "dnat", "redirect", "tproxy", "queue", "reject"})
"""Verdicts whose own words end the rule."""


def in_iptables_words(text: str) -> str:
    """`tcp dport { 80, 443 } drop` as `-p tcp --dports 80,443 -j DROP`; a policy in its upper case."""
    words = _WORD.findall(text)
    if words[:1] == ["policy"]:
        return " ".join(["policy", *(word.upper() for word in words[1:])])
    parts: list[str] = []
    at = 0
    while at < len(words):
        at = _option(words, at, parts)
    return " ".join(parts)


def _option(words: list[str], at: int, parts: list[str]) -> int:
    """Translate what begins at a word; returns where the next begins."""
    word, following = words[at], words[at + 1] if at + 1 < len(words) else ""
    if known := _matched(word, following):
        before, name, length = known
        parts += before
        return _valued(words, at + length, name, parts)
    if word in ("jump", "goto"):
        parts += ["-j" if word == "jump" else "-g", following]
        return at + 2
    if word in ("vmap", "map", "comment", "prefix"):
        # what a map decides is told by no single word
        return _value(words, at + 1)[1]
    if word in TARGETS:
        parts += ["-j", TARGETS[word]]
        return len(words) if word in LAST else at + 1
    return at + 1


def _matched(word: str, following: str) -> tuple[list[str], str, int] | None:
    """For two words that look at a packet: what goes before, the option, and how many words they are."""
    pairs = {
        **{(p, side): (["-p", p], option, 2) for p in PORT_PROTOCOLS for side, option in PORTS.items()},
        **{("th", side): ([], option, 2) for side, option in PORTS.items()},
        **{(family, end): ([], option, 2) for family in ("ip", "ip6") for end, option in ADDRESSES.items()},
        **{pair: ([], "-p", 2) for pair in PROTOCOL_OF},
        **{(icmp, "type"): (["-p", icmp], "--icmp-type", 2) for icmp in ("icmp", "icmpv6")},
        **{("meta", key): ([], option, 2) for key, option in INTERFACES.items()},
        ("ct", "state"): ([], "--ctstate", 2),
    }
    return pairs.get((word, following)) or (([], INTERFACES[word], 1) if word in INTERFACES else None)


def _valued(words: list[str], at: int, name: str, parts: list[str]) -> int:
    negated = at < len(words) and words[at] == "!="
    if at < len(words) and words[at] in ("!=", "=="):
        at += 1
    if at < len(words) and words[at] in ("vmap", "map"):
        return _value(words, at + 1)[1]
    values, after = _value(words, at)
    plain = [value.strip('"') for value in values]
    if plain and not any(value.startswith(("@", "$")) for value in plain):
        if name in PORTS.values():
            plain = [value.replace("-", ":") for value in plain]
        if name == "--ctstate":
            plain = [value.upper() for value in plain]
        parts += [*(["!"] if negated else []), name, ",".join(plain)]
    return after


def _value(words: list[str], at: int) -> tuple[list[str], int]:
    """One word or what stands in braces, split at commas, and where the next word begins."""
    if at < len(words) and words[at] == "{":
        depth, end = 1, at + 1
        while end < len(words) and depth:
            depth += (words[end] == "{") - (words[end] == "}")
            end += 1
        inside = " ".join(words[at + 1 : end - 1 if not depth else end])
        return [part.strip() for part in inside.split(",") if part.strip()], end
    # nft writes `a, b` and `a,b` alike where it takes a list without braces
    end = at + 1
    while end < len(words) and words[end - 1].endswith(","):
        end += 1
    return [part for part in "".join(words[at:end]).split(",") if part], end
