"""Changes applied to a live shadow and taken back, the kernel's state compared before and after."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.change.apply import apply, refusals, revert
from testbed.change.model import Change, CommandChange, LinkChange
from testbed.errors import CommandFailed, RevertFailed, Unsupported
from tests.testbed.labs import files, link, node, on_shadow, topology
from topologies.model import Impairment

RULES = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --dport 23 -j DROP
COMMIT
"""
MORE_RULES = (
    RULES.replace("--dport 23", "--dport 443")
    + """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o b -j MASQUERADE
COMMIT
"""
)
SYSCTLS = "net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.rp_filter = 0\n"
SEEN_SYSCTLS = [
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.tcp_tw_reuse",
]
MBIT = 1_000_000


@pytest.fixture
def lab(tmp_path):
    """h1 - fw - h2, dual stack, rate-limited towards h2."""
    configs = files(tmp_path, "fw", {"iptables.rules": RULES, "sysctl.conf": SYSCTLS})
    return topology(
        [
            node("h1", {"eth0": ["10.0.1.2/24"]}, routes={"0.0.0.0/0": "10.0.1.1"}),
            node(
                "fw",
                {"a": ["10.0.1.1/24"], "b": ["10.0.2.1/24", "2001:db8:2::1/64"]},
                "firewall",
                routes={"192.0.2.0/24": "10.0.2.2", "2001:db8:9::/48": "2001:db8:2::2"},
                configs=configs,
            ),
            node("h2", {"eth0": ["10.0.2.2/24", "2001:db8:2::2/64"]}),
        ],
        [link("h1:eth0", "fw:a"), link("fw:b", "h2:eth0", rate_bps=10 * MBIT)],
    )


def change(**parts) -> Change:
    return Change("test", Path("changes/test"), **parts)


def of_files(**after: str | None) -> Change:
    before = {("fw", "iptables.rules"): RULES.encode(), ("fw", "sysctl.conf"): SYSCTLS.encode()}
    names = {"rules": "iptables.rules", "rules6": "ip6tables.rules", "sysctls": "sysctl.conf"}
    keys = {("fw", names[name]): text for name, text in after.items()}
    return change(
        before={key: before[key] for key in keys if key in before},
        after={key: text.encode() for key, text in keys.items() if text is not None},
    )


def cabled(mtu: int = 1500, rate_bps: int | None = 10 * MBIT) -> LinkChange:
    return LinkChange(("fw", "b"), ("h2", "eth0"), Impairment(rate_bps), Impairment(rate_bps), mtu, 1)


def state(shadow) -> dict[str, str]:
    """What the kernel of the firewall says of itself, without counters; an empty table says nothing."""
    box, seen = shadow.boxes["fw"], {}
    for program in ("iptables-save", "ip6tables-save"):
        saved = [line.split(" [")[0] for line in box.run([program]).splitlines()]
        seen[program] = "\n".join(
            line for line in saved if line.startswith("-A") or (line.startswith(":") and "ACCEPT" not in line)
        )
    for words in ("ip route", "ip -6 route", "ip -br addr", "tc qdisc", f"sysctl {' '.join(SEEN_SYSCTLS)}"):
        seen[words] = "\n".join(sorted(box.run(words.split()).splitlines()))
    seen["mtu"] = str([p.mtu_octets for p in box.kernel.ports()])
    return seen


CHANGES = {
    "rules": (of_files(rules=MORE_RULES), {"iptables-save"}),
    "rules of the other family": (of_files(rules6=RULES), {"ip6tables-save"}),
    "no rules": (of_files(rules=None), {"iptables-save"}),
    "sysctls": (
        of_files(sysctls="net.ipv4.ip_default_ttl=33\nnet.ipv4.tcp_tw_reuse=0\n"),
        {f"sysctl {' '.join(SEEN_SYSCTLS)}"},
    ),
    "rate": (change(links=(cabled(rate_bps=5 * MBIT),)), {"tc qdisc"}),
    "no rate": (change(links=(cabled(rate_bps=None),)), {"tc qdisc"}),
    "mtu": (change(links=(cabled(mtu=1400),)), {"mtu"}),
    "an mtu too small for IPv6": (change(links=(cabled(mtu=1000),)), {"mtu", "ip -6 route", "ip -br addr"}),
    "commands": (
        change(
            commands=(
                CommandChange(
                    "fw",
                    ("ip", "route", "add", "blackhole", "198.51.100.0/24"),
                    ("ip", "route", "del", "198.51.100.0/24"),
                    1,
                ),
                CommandChange(
                    "fw",
                    ("ip", "route", "add", "203.0.113.0/24", "via", "10.0.2.2"),
                    ("ip", "route", "del", "203.0.113.0/24"),
                    2,
                ),
            )
        ),
        {"ip route"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_does_what_it_says_and_nothing_of_it_is_left(name, lab, tmp_path):
    made, touched = CHANGES[name]

    def job(shadow):
        seen = [state(shadow)]
        for act in (apply, revert):
            act(shadow, made)
            seen.append(state(shadow))
        return seen

    before, during, after = on_shadow(lab, tmp_path, job)
    assert {what for what in before if before[what] != during[what]} == touched
    assert after == before


def test_a_rollback_that_fails_is_told_and_all_the_rest_is_taken_back(lab, tmp_path):
    bad = CommandChange(
        "fw", ("ip", "route", "add", "blackhole", "198.51.100.0/24"), ("ip", "route", "del", "192.0.99.0/24"), 1
    )
    good = CommandChange(
        "fw", ("ip", "route", "add", "blackhole", "203.0.113.0/24"), ("ip", "route", "del", "203.0.113.0/24"), 2
    )
    files_too = of_files(rules=MORE_RULES)
    made = change(before=files_too.before, after=files_too.after, links=(cabled(mtu=1400),), commands=(good, bad))

    def job(shadow):
        before = state(shadow)
        apply(shadow, made)
        with pytest.raises(RevertFailed) as failure:
            revert(shadow, made)
        after = state(shadow)
        return (
            str(failure.value),
            type(failure.value.__cause__),
            {what for what in before if before[what] != after[what]},
            after,
        )

    said, cause, left, after = on_shadow(lab, tmp_path, job)
    assert "COULD NOT REVERT test (command on fw)" in said
    assert cause is CommandFailed
    assert left == {"ip route"}
    assert "203.0.113.0/24" not in after["ip route"]


def test_a_change_that_failed_half_way_is_taken_back_without_undoing_what_was_not_done(lab, tmp_path):
    def undone(prefix):
        return ("ip", "route", "del", prefix)

    done = CommandChange("fw", ("ip", "route", "add", "blackhole", "198.51.100.0/24"), undone("198.51.100.0/24"), 1)
    fails = CommandChange("fw", ("ip", "route", "add", "nonsense"), undone("203.0.113.0/24"), 2)
    never = CommandChange("fw", ("ip", "route", "add", "blackhole", "192.0.99.0/24"), undone("192.0.99.0/24"), 3)
    made = change(commands=(done, fails, never))

    def job(shadow):
        before = state(shadow)
        with pytest.raises(CommandFailed, match="nonsense"):
            apply(shadow, made)
        during = state(shadow)
        revert(shadow, made)
        return before, during, state(shadow)

    before, during, after = on_shadow(lab, tmp_path, job)
    assert "198.51.100.0/24" in during["ip route"]
    assert after == before


@pytest.mark.parametrize(
    "made",
    [
        change(links=(cabled(mtu=10),)),
        change(links=(cabled(rate_bps=2**40),)),
        of_files(sysctls="net.ipv4.no_such_setting=1\n"),
    ],
)
def test_what_the_kernel_refuses_is_unsupported_and_taken_back(made, lab, tmp_path):
    def job(shadow):
        before = state(shadow)
        with pytest.raises(Unsupported):
            apply(shadow, made)
        revert(shadow, made)
        return before, state(shadow)

    before, after = on_shadow(lab, tmp_path, job)
    assert after == before


def test_only_complaints_of_the_changed_files_are_refusals_and_nothing_is_touched(lab, tmp_path):
    def job(shadow):
        before = state(shadow)
        said = refusals(shadow, of_files(rules=RULES.replace("-j DROP", "-j DORP")))
        return (
            [(r.node, r.complaint.file, r.complaint.line) for r in said],
            refusals(shadow, of_files(rules=MORE_RULES)),
            before == state(shadow),
        )

    said, none, untouched = on_shadow(lab, tmp_path, job)
    assert said == [("fw", "iptables.rules", 5)]
    assert none == []
    assert untouched
