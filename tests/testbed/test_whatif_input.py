"""Bad input to `testbed whatif` is told by file and line, exits 2, and leaves nothing running."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHOP = Path(__file__).parents[2] / "topologies" / "shop"


@pytest.fixture
def lab(tmp_path):
    """A copy of the packaged lab that a test may spoil."""
    return Path(shutil.copytree(SHOP, tmp_path / "shop"))


def testbed(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "testbed", *map(str, argv)], capture_output=True, text=True, timeout=120, check=False
    )


testbed.__test__ = False


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr.replace("\n", " "), done.stderr


def whatif(lab: Path, change: object = None, *more: object) -> subprocess.CompletedProcess[str]:
    return testbed("whatif", lab, "--change", change or lab / "changes" / "none", "--runs", lab / "runs", *more)


def edit(path: Path, old: str, new: str) -> int:
    """Replace text in a file; the number of the line that has it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def test_wrong_yaml_names_file_and_line(lab):
    line = edit(lab / "lab.yaml", "    fw1:", "    fw1: [")
    done = whatif(lab)
    refused(done, "lab.yaml:", "expected")
    assert int(done.stderr.split("lab.yaml:")[1].split(":")[0]) >= line


def test_unknown_kind_lists_the_choices(lab):
    line = edit(lab / "lab.yaml", "kind: firewall", "kind: firewal")
    refused(whatif(lab), f"lab.yaml:{line}:", "firewal", "firewall")


def test_link_to_nowhere_names_the_end(lab):
    line = edit(lab / "lab.yaml", '"r2:ens6", "db1:ens3"', '"r2:ens6", "db9:ens3"')
    refused(whatif(lab), f"lab.yaml:{line}:", "db9")


def test_address_that_no_node_owns_is_named(lab):
    edit(lab / "lab.yaml", "prefixes: [198.51.100.0/24, 192.0.2.0/24,", "prefixes: [198.51.100.0/24,")
    refused(whatif(lab), "192.0.2.", "no node")


@pytest.mark.parametrize("content", [b"", b"this is no capture at all, only text" * 10, b"\xd4\xc3\xb2\xa1\x02\x00"])
def test_file_that_is_no_capture_is_refused(lab, content):
    broken = lab / "broken.pcap"
    broken.write_bytes(content)
    refused(whatif(lab, None, "--capture", broken), "broken.pcap", "expected")


def test_capture_without_packets_is_refused(lab):
    empty = lab / "empty.pcap"
    empty.write_bytes((SHOP / "traffic" / "internet.pcap").read_bytes()[:24])
    refused(whatif(lab, None, "--capture", empty), "empty.pcap")


def test_truncated_capture_is_refused_with_how_far_it_was_good(lab):
    cut = lab / "traffic" / "internet.pcap"
    cut.write_bytes(cut.read_bytes()[:200_000])
    refused(whatif(lab), "internet.pcap", "in the middle of a record", "good packets")


def test_patch_that_does_not_apply_shows_what_the_file_has(lab):
    shutil.copytree(lab / "changes" / "block-https", lab / "changes" / "stale")
    edit(
        lab / "configs" / "fw1" / "iptables.rules",
        "--ctstate INVALID -j DROP\n-A FORWARD",
        "--ctstate INVALID -j LOGDROP\n-A FORWARD",
    )
    refused(whatif(lab, lab / "changes" / "stale"), "change.patch:", "LOGDROP")


def test_change_that_does_not_exist_lists_those_that_do(lab):
    refused(whatif(lab, lab / "changes" / "blok-https"), "blok-https", "block-https")


def test_lab_file_that_its_own_daemon_refuses_is_bad_input(lab):
    path = lab / "configs" / "lb1" / "haproxy.cfg"
    line = edit(path, "    balance roundrobin", "    balance roundrobbin")
    refused(whatif(lab), f"haproxy.cfg:{line}:", "balance only supports")


def test_config_file_that_no_such_kind_reads_is_named(lab):
    (lab / "configs" / "fw1" / "haproxy.cfg").write_text("global\n")
    refused(whatif(lab), "haproxy.cfg", "iptables.rules")


def test_usage_errors_exit_2(lab):
    assert testbed("whatif", lab).returncode == 2
    assert testbed("what", lab).returncode == 2
    assert testbed("whatif", lab, "--change", lab, "--speed", "0").returncode == 2
