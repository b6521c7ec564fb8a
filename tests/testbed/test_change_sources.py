"""A change is read from a folder or a patch, and what does not fit the lab is refused."""

import dataclasses
from pathlib import Path

import pytest

from testbed.change import Line, read_change
from testbed.errors import InvalidInput
from topologies.load import Lab, load_lab
from topologies.model import Impairment

LAB = """\
name: small
topology:
  nodes:
    fw1: {kind: firewall, interfaces: {ens3: [10.0.0.1/24]}}
    web1: {kind: host, interfaces: {ens3: [10.0.0.2/24]}}
  links:
    - {endpoints: ["fw1:ens3", "web1:ens3"], rate: 10Mbit}
"""
RULES = b"*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n"
BLOCKED = b"*filter\n-A FORWARD -p tcp --dport 443 -j DROP\n-A FORWARD -j ACCEPT\nCOMMIT\n"
RULES_PATH = "configs/fw1/iptables.rules"
HEADER = f"--- a/{RULES_PATH}\n+++ b/{RULES_PATH}\n@@ -1,2 +1,3 @@\n"
BODY = b" *filter\n+-A FORWARD -p tcp --dport 443 -j DROP\n -A FORWARD -j ACCEPT\n"
PATCH = HEADER.encode() + BODY
DROP = Line("fw1", RULES_PATH, 2, "+", "-A FORWARD -p tcp --dport 443 -j DROP")


def reads(node):
    return frozenset({"iptables.rules", "sysctl.conf"} if node.kind == "firewall" else {"sysctl.conf"})


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "configs" / "fw1").mkdir(parents=True)
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / RULES_PATH).write_bytes(RULES)
    return load_lab(tmp_path)


def write(lab: Lab, files: dict[str, bytes]) -> Path:
    folder = lab.folder / "changes" / "try"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_an_overlay_and_a_patch_are_the_same_change(lab):
    overlay = read_change(lab, write(lab, {RULES_PATH: BLOCKED}), reads)
    (lab.folder / "try.diff").write_bytes(PATCH)
    patch = read_change(lab, lab.folder / "try.diff", reads)
    assert overlay.lines == (DROP,)
    assert overlay == dataclasses.replace(patch, source=overlay.source)
    assert overlay.after == {("fw1", "iptables.rules"): BLOCKED}
    assert overlay.touched("fw1") == {"iptables.rules"}
    assert overlay.touched("web1") == frozenset()


@pytest.mark.parametrize(
    "files", [{}, {"expected.yaml": b"verdict: PASS\n"}, {RULES_PATH: RULES}, {"change.patch": b""}]
)
def test_a_change_in_which_nothing_differs_is_legal(lab, files):
    change = read_change(lab, write(lab, files), reads)
    assert change.is_empty
    assert change.lines == ()


def test_links_and_commands_come_with_their_lines(lab):
    edits = b'links:\n  - {endpoints: ["web1:ens3", "fw1:ens3"], mtu: 1400, a-to-b: {rate: 1Mbit}}\n'
    edits += b"commands:\n  - {node: fw1, run: [ip, route, flush, cache], rollback: ['true']}\n"
    change = read_change(lab, write(lab, {"change.yaml": edits}), reads)
    (link,) = change.links
    assert (link.a, link.b, link.mtu, link.line) == (("fw1", "ens3"), ("web1", "ens3"), 1400, 2)
    assert (link.a_to_b, link.b_to_a) == (Impairment(rate_bps=10_000_000), Impairment(rate_bps=1_000_000))
    (command,) = change.commands
    assert (command.run, command.rollback, command.line) == (("ip", "route", "flush", "cache"), ("true",), 4)
    assert [(n.node, n.interface, n.file, n.line) for n in change.lines] == [
        ("fw1", "ens3", "changes/try/change.yaml", 2),
        ("fw1", None, "changes/try/change.yaml", 4),
    ]


def test_what_is_expected_is_read(lab):
    text = b"verdict: FAIL\nclasses: [checkout]\nblame: {node: fw1, file: configs/fw1/iptables.rules, text: DROP}\n"
    expected = read_change(lab, write(lab, {"expected.yaml": text}), reads).expected
    assert expected is not None
    assert (expected.verdict, expected.classes) == ("FAIL", ("checkout",))
    assert expected.blame is not None
    assert expected.blame.node == "fw1"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"configs/fw2/iptables.rules": b""}, "'fw1' perhaps"),
        ({"configs/web1/iptables.rules": b""}, "does not read"),
        ({"configs/fw1/iptabels.rules": b""}, "'iptables.rules' perhaps"),
        ({"chnage.patch": b""}, "'change.patch' perhaps"),
        ({"change.patch": PATCH, RULES_PATH: BLOCKED}, "changes too"),
        ({"change.patch": PATCH.replace(b"ACCEPT", b"REJECT")}, "found '-A FORWARD -j ACCEPT' at configs/fw1"),
        ({"change.patch": PATCH.replace(b"configs/", b"configs/../")}, "the path"),
        ({"change.patch": PATCH.replace(b"a/configs", b"/etc").replace(b"b/configs", b"/etc")}, "the path"),
        ({"change.patch": PATCH.replace(b"configs/fw1/iptables.rules", b"lab.yaml")}, "the path"),
        ({"change.yaml": b'links: [{endpoints: ["fw1:ens3", "fw1:ens4"]}]\n'}, "no link between"),
        ({"change.yaml": b"commands: [{node: fw1, run: []}]\n"}, "rollback"),
        ({"change.yaml": b"commands: [{node: fw2, run: [a], rollback: [b]}]\n"}, "change.yaml:1:19: found node 'fw2'"),
        ({"expected.yaml": b"verdict: MAYBE\n"}, "expected.yaml:1:10: found 'MAYBE'"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(lab, files, told):
    with pytest.raises(InvalidInput) as raised:
        read_change(lab, write(lab, files), reads)
    assert told in str(raised.value)


def test_no_symbolic_link_leads_out(lab):
    folder = write(lab, {"configs/fw1/sysctl.conf": b""})
    (folder / RULES_PATH).symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="symbolic link"):
        read_change(lab, folder, reads)


def test_a_change_that_is_not_there_is_told(lab):
    with pytest.raises(InvalidInput, match="no such file or folder"):
        read_change(lab, lab.folder / "changes" / "nowhere", reads)
