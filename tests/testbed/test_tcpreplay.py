"""tcpreplay: which versions may send a window that is judged, and the one that is installed here."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import CommandFailed, Unsupported
from testbed.network.mininet_api import ShadowNet
from testbed.sandbox import Sandbox
from testbed.tcpreplay import (
    NEEDED,
    one_sided,
    replaying,
    require_punctual,
    result_of,
    tcpreplay_version,
    version_in,
)
from tests.replay.packet_captures import ESP, GRE, esp, gre, ip4
from tests.replay.test_packet_mode_match import A, B, plan_of, sent

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
    written = one_sided(made, tmp_path)
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
            captures = one_sided(made, tmp_path)
            with replaying({"left": space}, dict.fromkeys(captures, "eth0"), captures) as started:
                counted = result_of(started[0], 10)
            broken = dict.fromkeys(captures, tmp_path / "nothing.pcap")
            with (
                replaying({"left": space}, dict.fromkeys(broken, "eth0"), broken) as started,
                pytest.raises(CommandFailed) as failure,
            ):
                result_of(started[0], 10)
            return counted, str(failure.value)
        finally:
            net.close()

    counted, failure = Sandbox("tcpreplay", (tmp_path,)).call(job)
    assert counted.sent == 10
    assert "nothing.pcap" in failure
