"""tcpreplay: which versions may send a window that is judged, and the one that is installed here."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.packet_mode.kpis import packet_kpis
from replay.tap import Tap, Taps
from testbed.errors import CommandFailed, Unsupported
from testbed.network.mininet_api import ShadowNet
from testbed.network.next_hop import ways
from testbed.packet_mode import Sender, packet_mode
from testbed.sandbox import Sandbox
from testbed.silence import TABLE
from testbed.tcpreplay import (
    NEEDED,
    one_sided,
    replaying,
    require_punctual,
    result_of,
    tcpreplay_version,
    version_in,
)
from testbed.tcpreplay_player import TcpreplayPlayer
from tests.replay.packet_captures import ESP, GRE, capture, esp, gre, ip4
from tests.replay.test_packet_mode_match import A, B, plan_of, sent
from tests.testbed.labs import on_shadow
from tests.testbed.test_packet_mode import both_ways, lab
from tests.testbed.test_packet_mode import plan_of as on_the_lab

DEBIAN = """tcpreplay version: 4.4.3 (build git:v4.4.3) (debug)
Copyright 2013-2022 by Fred Klassen <tcpreplay at appneta dot com> - AppNeta
Compiled against libpcap: 1.10.3
"""
NEW = """tcpreplay version: 4.5.3 (build git:v4.5.3)
Copyright 2013-2026 by Fred Klassen <tcpreplay at appneta dot com> - AppNeta
Not compiled with netmap
"""
installed = pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="tcpreplay is not installed")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (DEBIAN, (4, 4, 3)),
        (NEW, (4, 5, 3)),
        ("tcpreplay version: 5.0 (build git:v5.0)", (5, 0, 0)),
        ("tcpreplay version: v4.10.12-beta1", (4, 10, 12)),
        ("Compiled against libpcap: 1.10.3", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_what_it_says_of_itself(said, version):
    assert version_in(said) == version


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_other_words_have_no_version_and_do_no_harm(said):
    assert version_in(said) is None or "version" in said.lower()


def test_a_version_that_ends_late_is_refused_with_its_number_the_needed_one_and_why():
    with pytest.raises(Unsupported, match=r"4\.4\.3.*before 4\.5\.3.*560 to 790 ms late.*install 4\.5\.3"):
        require_punctual((4, 4, 3))
    require_punctual(NEEDED)
    require_punctual((4, 10, 0))


@installed
def test_the_installed_one_is_judged_by_its_own_word():
    found = tcpreplay_version()
    if found < NEEDED:
        with pytest.raises(Unsupported, match="as a sender"):
            require_punctual(found)
    else:
        require_punctual(found)


def test_each_interface_gets_the_packets_that_leave_it_at_their_moments(tmp_path):
    plan = plan_of(tmp_path, [(n * 1_000, ip4(*((A, B) if n % 2 else (B, A)), ESP, esp(n))) for n in range(6)])
    made = sent(plan)
    written = one_sided(made, lambda _: tmp_path)
    assert {node for node, _ in written} == {"left", "right"}
    octets = sum(path.stat().st_size - 24 for path in written.values())
    assert octets == len(made.octets) + 16 * len(made)


@installed
def test_a_real_one_sends_the_capture_it_is_given_and_a_broken_one_is_told(tmp_path):
    plan = plan_of(tmp_path, [(n * 1_000, ip4(A, B, GRE, gre(n))) for n in range(10)])
    made = sent(plan)

    def job():
        net = ShadowNet()
        try:
            space = net.add("left", {}).namespace
            space.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"])
            space.run(["ip", "link", "set", "eth0", "up"])
            space.run(["ip", "link", "set", "eth1", "up"])
            captures = {("left", 2): one_sided(made, lambda _: tmp_path)["left", 2]}
            with replaying({"left": space}, captures) as started:
                counted = result_of(started[0], 10)
            broken = dict.fromkeys(captures, tmp_path / "nothing.pcap")
            with (
                replaying({"left": space}, broken) as started,
                pytest.raises(CommandFailed) as failure,
            ):
                result_of(started[0], 10)
            return counted, str(failure.value)
        finally:
            net.close()

    counted, failure = Sandbox("tcpreplay", (tmp_path,)).call(job)
    assert counted.sent == 10
    assert "nothing.pcap" in failure


@installed
@pytest.mark.skipif(shutil.which("tcpreplay") is None or tcpreplay_version() >= NEEDED, reason="the installed one may")
def test_packet_mode_refuses_the_installed_one_as_a_sender(tmp_path):
    def job(shadow):
        spaces = {name: box.namespace for name, box in shadow.boxes.items()}
        plan = on_the_lab(shadow, capture(tmp_path / "flows.pcap", both_ways(2)))
        with pytest.raises(Unsupported) as refused, packet_mode(spaces, plan, sender=Sender.TCPREPLAY):
            pass
        return str(refused.value), spaces["web1"].run(["nft", "list", "tables"])

    said, left = on_shadow(lab(tmp_path), tmp_path, job, ready=False)
    assert "as a sender" in said
    assert TABLE not in left


@installed
def test_one_that_may_sends_both_sides_and_is_timed_by_the_taps(tmp_path):
    def job(shadow):
        spaces = {name: box.namespace for name, box in shadow.boxes.items()}
        plan = on_the_lab(shadow, capture(tmp_path / "flows.pcap", both_ways(20)))
        with (
            Taps([Tap(name, spaces[name].net_fd) for name in ("outside", "web1")]) as taps,
            # whatever is installed: how late it ends is not asked here
            TcpreplayPlayer(plan, spaces, partial(ways, spaces), needed=(0, 0, 0)) as player,
        ):
            player.arm()
            taps.start_window()
            result = player.play(0, armed=True).wait(20)
            seen = taps.end_window({name: tmp_path / f"{name}.pcap" for name in ("outside", "web1")})
        left = [path.name for path in (spaces["web1"].home / "run").glob("packets.*")]
        found = packet_kpis(plan, result, seen.paths, seen.drops, "run", 0, "baseline")
        return found.kpis, dict(found.reasons), left

    kpis, reasons, left = on_shadow(lab(tmp_path), tmp_path, job, ready=False)
    assert reasons == {}
    assert kpis["completed"].all()
    assert kpis["lateness_ns"].between(0, 5_000_000_000).all()
    assert left == []
