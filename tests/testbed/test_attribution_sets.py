"""Members taken from sets and given to them as culprits, by the counters of the rules that name the set."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from testbed.attribution import blamed
from testbed.attribution.sets import set_of_lines
from tests.testbed.evidence_lab import SERVER, TO_WEB, change_of, evidence_lab
from tests.testbed.shop_scene import counters, finding, flow, table
from topologies.load import load_lab

NFT = """table inet filter {
    set friends {
        type ipv4_addr
        elements = { 198.51.100.7, 198.51.100.8 }
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ip saddr @friends accept
    }
}
"""
ELEMENTS = "elements = { 198.51.100.7, 198.51.100.8 }"


def rule(place: int, before: float, after: float, text: str) -> tuple[str, str, str, str, float, float, str, str]:
    return ("fw1", "rule", f"nftables.conf:inet/filter/forward/{place}", "packets", before, after, text, text)


def test_a_member_that_was_taken_from_a_set_is_blamed_and_not_the_policy_below(tmp_path: Path):
    evidence_lab(tmp_path)
    (tmp_path / "configs/fw1/nftables.conf").write_text(NFT)
    lab = load_lab(tmp_path)
    change = change_of(lab, "less", {"fw1/nftables.conf": NFT.replace("198.51.100.7, ", "")})
    texts = ("ip saddr @friends counter accept", "policy drop")
    seen = counters(rule(1, 80, 40, texts[0]), rule(0, 0, 6, texts[1]))
    flows = table(flow("a", 443, to=SERVER))
    (told,) = blamed([finding("a")], change, lab, seen, flows, {"a": TO_WEB})
    assert told.blame is not None
    assert (told.blame.object, told.blame.decided_by, told.blame.in_change) == ("set friends", "counters", True)
    assert "elements" in told.blame.text
    assert "set friends lost 198.51.100.7" in told.blame.evidence[0]
    assert "80 packets a window before, 40 with the change" in told.blame.evidence[0]


def test_members_of_ipset_are_of_the_set_that_their_line_names():
    assert set_of_lines("create a hash:ip\nadd a 10.0.0.1\nadd b 10.0.0.2\n", ipset=True) == {1: "a", 2: "a", 3: "b"}


def test_lines_of_sets_maps_and_definitions_are_known():
    assert set_of_lines(NFT) == {2: "friends", 3: "friends", 4: "friends", 5: "friends"}
    assert set_of_lines("define SHOPS = { 10.0.0.1,\n 10.0.0.2 }\ntable ip x {\n}\n") == {1: "SHOPS", 2: "SHOPS"}


@given(st.text(alphabet="set map{}define =\n#ab;", max_size=120), st.booleans())
def test_any_text_has_lines_of_sets_or_none(text, ipset):
    found = set_of_lines(text, ipset=ipset)
    assert all(1 <= line <= len(text.splitlines()) for line in found)
