"""Two revisions of a git repository as a lab and a change: what counts, what is refused, and what is left untouched."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.change.sources import read_change
from testbed.errors import InvalidInput
from testbed.gate.decision import Decision, Event, Inconclusive, Mode, decided
from testbed.gate.diffs import file_diff
from testbed.gate.hooks import ran, words
from testbed.gate.places import Layout
from testbed.gate.repository import INDEX, Repository
from testbed.gate.revisions import Compared, compared
from testbed.gate.rollback import write_rollback
from testbed.store import RunDirectory
from tests.testbed.quick_lab import LAB, RULES, quick_lab
from topologies.load import load_lab

DROP = "-A FORWARD -p udp -m udp --dport 5001 -j DROP\n"
FILE = "configs/fw1/iptables.rules"


class Configs:
    """A repository made on the spot."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *words_: str) -> str:
        settings_ = ("-c", "user.name=test", "-c", "user.email=test@test.example", "-c", "commit.gpgsign=false")
        argv = ["git", "-C", str(self.top), *settings_, *words_]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, tag: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", tag)
        self.git("tag", tag)
        return tag

    def put(self, path: str, text: str) -> None:
        (self.top / path).parent.mkdir(parents=True, exist_ok=True)
        (self.top / path).write_text(text)


@pytest.fixture
def configs(tmp_path) -> Configs:
    """The quick lab in a folder of a repository, tagged base."""
    repository = Configs(tmp_path / "repo")
    quick_lab(repository.top / "net" / "quick")
    repository.commit("base")
    return repository


@pytest.fixture
def compare(configs, tmp_path) -> Callable[..., Compared]:
    def between(base: str, head: str, lab: str | None = None, **options) -> Compared:
        return compared(Repository.containing(configs.top), base, head, lab, tmp_path / f"work-{head}-{lab}", **options)

    return between


def change_of(found: Compared):
    return read_change(load_lab(found.lab), found.change)


def test_a_changed_file_is_the_change_and_the_lab_is_the_bases(configs, compare):
    configs.put(f"net/quick/{FILE}", RULES.format(more=DROP))
    configs.commit("drop")
    configs.put(f"net/quick/{FILE}", "not committed")
    before = configs.git("status", "--porcelain")
    found = compare("base", "drop")
    assert not found.is_empty
    assert found.changed == (f"net/quick/{FILE}",)
    assert (found.lab / FILE).read_text() == RULES.format(more="")
    assert (found.lab / "traffic" / "second.pcap").read_bytes()[:4]
    change = change_of(found)
    assert [(line.sign, line.text) for line in change.lines] == [("+", DROP.strip())]
    assert found.layout.path(FILE) == f"net/quick/{FILE}"
    assert configs.git("status", "--porcelain") == before
    assert (configs.top / f"net/quick/{FILE}").read_text() == "not committed"


def test_files_that_come_and_go_are_part_of_the_change(configs, compare):
    (configs.top / "net/quick/configs/r1/frr.conf").unlink()
    configs.put("net/quick/configs/fw1/sysctl.conf", "net.ipv4.ip_forward = 1\n")
    configs.commit("moved")
    change = change_of(compare("base", "moved"))
    assert set(change.before) - set(change.after) == {("r1", "frr.conf")}
    assert set(change.after) - set(change.before) == {("fw1", "sysctl.conf")}


def test_a_link_of_the_lab_file_is_changed_live_and_placed_on_its_line(configs, compare):
    changed = LAB.replace('"r1:ens3"]}', '"r1:ens3"], delay: 5ms, mtu: 1400}').replace("50Mbit", "40Mbit")
    configs.put("net/quick/lab.yaml", changed)
    configs.commit("slow")
    found = compare("base", "slow")
    change = change_of(found)
    told = {link.a: link for link in change.links}
    assert told["fw1", "ens4"].a_to_b.delay_ns == told["fw1", "ens4"].b_to_a.delay_ns == 5_000_000
    assert told["fw1", "ens4"].mtu == 1400
    assert told["outside", "eth0"].a_to_b.rate_bps == 40_000_000
    for line in change.lines:
        place, number = found.layout.moved[f"{line.file}:{line.line}"]
        assert place == "net/quick/lab.yaml"
        assert line.node in changed.splitlines()[number - 1]


def test_only_what_lies_below_the_lab_counts(configs, compare):
    configs.put("README.md", "more\n")
    slower = "replay: {connect_timeout_s: 0.5, response_timeout_s: 0.3}\nwindows: {treatment: 3}\n"
    configs.put("net/quick/policy.yaml", slower)
    configs.put("net/quick/lab.yaml", "# a remark\n" + LAB)
    configs.commit("remarks")
    found = compare("base", "remarks")
    assert found.is_empty
    assert found.notes == ("net/quick/policy.yaml differs; the base's is used",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAB.replace("listen: [tcp/8080]", "listen: [tcp/8081]"), "nodes that differ from the base's: web1"),
        (LAB.replace(", rate: 50Mbit", ""), "a link without the rate that the base has"),
        (LAB.replace("kind: router", "kind: ruter"), "unknown kind 'ruter'"),
    ],
)
def test_what_cannot_be_changed_live_is_refused_with_its_place(configs, compare, text, said):
    configs.put("net/quick/lab.yaml", text)
    configs.commit("other")
    with pytest.raises(InvalidInput, match=said) as caught:
        compare("base", "other")
    assert str(caught.value.path).endswith(":net/quick/lab.yaml")


def test_the_lab_is_found_or_asked_for(configs, compare):
    quick_lab(configs.top / "other")
    configs.commit("two")
    configs.put(f"net/quick/{FILE}", RULES.format(more=DROP))
    configs.commit("one")
    assert compare("two", "one").layout.lab == "net/quick"
    assert compare("two", "one", "other").is_empty
    configs.put(f"other/{FILE}", RULES.format(more=DROP))
    configs.commit("both")
    with pytest.raises(InvalidInput, match="--lab LAB to say which: net/quick, other"):
        compare("two", "both")
    with pytest.raises(InvalidInput, match="it has net/quick, other"):
        compare("two", "both", "nowhere")


def test_a_lab_at_the_top_of_the_repository(tmp_path):
    repository = Configs(tmp_path / "repo")
    quick_lab(repository.top)
    repository.commit("base")
    repository.put(FILE, RULES.format(more=DROP))
    repository.commit("drop")
    found = compared(Repository.containing(repository.top), "base", "drop", None, tmp_path / "work")
    assert found.layout.path(FILE) == FILE
    assert len(change_of(found).lines) == 1


def test_a_lab_elsewhere_takes_its_configs_from_the_repository(tmp_path):
    lab = quick_lab(tmp_path / "lab")
    repository = Configs(tmp_path / "repo")
    shutil.copytree(lab / "configs", repository.top / "devices")
    repository.put("devices/printer/printer.conf", "not of this lab\n")
    repository.commit("base")
    repository.put("devices/fw1/iptables.rules", RULES.format(more=DROP))
    repository.put("devices/printer/printer.conf", "changed\n")
    repository.commit("drop")
    source = Repository.containing(repository.top)
    found = compared(source, "base", "drop", str(lab), tmp_path / "work", configs="devices")
    assert found.changed == ("devices/fw1/iptables.rules",)
    assert [line.text for line in change_of(found).lines] == [DROP.strip()]
    assert found.captures == (lab / "traffic" / "second.pcap",)
    assert found.layout.path(FILE) == "devices/fw1/iptables.rules"


def test_errors_name_the_repositorys_own_paths(configs, compare):
    configs.put("net/quick/configs/fw1/sysctl.cnof", "x = 1\n")
    configs.commit("typo")
    found = compare("base", "typo")
    with pytest.raises(InvalidInput) as caught:
        read_change(load_lab(found.lab), found.change, lambda _node: frozenset({"sysctl.conf"}))
    told = found.located(caught.value)
    assert str(told.path) == f"{configs.git('rev-parse', 'typo')[:9]}:net/quick/configs/fw1/sysctl.cnof"


def test_unknown_revisions_and_folders_that_are_no_repository_are_told(configs, compare, tmp_path):
    for revision in ("nope", "-x", "base^{tree}^{commit}"):
        with pytest.raises(InvalidInput, match="expected a commit, branch or tag"):
            compare(revision, "base")
    with pytest.raises(InvalidInput, match="a folder in the work tree of a git repository"):
        Repository.containing(tmp_path)
    with pytest.raises(InvalidInput):
        Repository.containing(tmp_path / "absent")
    clone = tmp_path / "clone"
    configs.commit("later")
    argv = ["git", "clone", "-q", "--depth=1", f"file://{configs.top}", str(clone)]
    subprocess.run(argv, check=True, capture_output=True)
    with pytest.raises(InvalidInput, match="shallow clone has not: git fetch --depth=1 origin base~0"):
        Repository.containing(clone).commit("base~0")


def test_files_are_read_byte_for_byte_and_odd_names_are_kept(configs):
    odd = 'net/quick/configs/fw1/files/etc/ü "x"\n.conf'
    configs.put(".gitattributes", "* text eol=crlf\nnet/** export-ignore\n")
    configs.put(odd, "a\nb\n")
    (configs.top / "net/quick/link").symlink_to("lab.yaml")
    configs.commit("odd")
    repository = Repository.containing(configs.top)
    files = repository.files(repository.commit("odd"))
    contents = repository.contents(files.values())
    assert contents[files[odd].hash] == b"a\nb\n"
    assert files["net/quick/link"].link
    assert repository.files(INDEX) == files


def test_a_pointer_of_large_file_storage_is_no_capture(configs, compare):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    configs.put("net/quick/traffic/second.pcap", pointer)
    configs.commit("stored")
    configs.put(f"net/quick/{FILE}", RULES.format(more=DROP))
    configs.commit("drop")
    with pytest.raises(InvalidInput, match="a Git LFS pointer") as caught:
        compare("stored", "drop")
    assert str(caught.value.path) == "net/quick/traffic/second.pcap"


# ---- diffs and the way back


LINES = st.lists(st.sampled_from([b"a", b"b", b"-- x", b"\\ no", b"", b"\r", b"\xff"]), max_size=8)
CONTENT = st.none() | st.builds(lambda lines, end: b"\n".join(lines) + end, LINES, st.sampled_from([b"", b"\n"]))


@settings(max_examples=40, deadline=None)
@given(CONTENT, CONTENT)
def test_git_applies_our_diffs(tmp_path_factory, before, after):
    folder = tmp_path_factory.mktemp("apply")
    if before is not None:
        (folder / "a file").write_bytes(before)
    text = file_diff("a file", before, after)
    assert (text == b"") == (before == after)
    if text:
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
        subprocess.run(["git", "apply", "-"], input=text, cwd=folder, env=environment, check=True, capture_output=True)
    there = (folder / "a file").read_bytes() if (folder / "a file").exists() else None
    assert there == after


def test_the_way_back_is_exact_and_says_how(configs, compare, tmp_path):
    configs.put(f"net/quick/{FILE}", RULES.format(more=DROP))
    configs.put("net/quick/configs/fw1/sysctl.conf", "net.ipv4.ip_forward = 1\n")
    (configs.top / "net/quick/configs/lb1/haproxy.cfg").unlink()
    configs.commit("changed")
    found = compare("base", "changed")
    run = RunDirectory.created(tmp_path / "runs", "run")
    folder = write_rollback(run, change_of(found), load_lab(found.lab).topology, found.layout)
    assert (folder / "configs/fw1/iptables.rules").read_text() == RULES.format(more="")
    configs.git("apply", "--index", str(folder / "reverse.patch"))
    assert configs.git("diff", "--stat", "base") == ""
    told = (folder / "README.md").read_text()
    assert "iptables-restore configs/fw1/iptables.rules" in told
    assert "remove `sysctl.conf`" in told
    assert "systemctl reload haproxy" in told


def test_the_way_back_of_links_and_commands(tmp_path):
    lab = load_lab(quick_lab(tmp_path / "lab"))
    folder = tmp_path / "change"
    folder.mkdir()
    (folder / "change.yaml").write_text(
        'links:\n  - {endpoints: ["fw1:ens4", "r1:ens3"], delay: 5ms}\n'
        "commands:\n  - {node: r1, run: [ip, route, add, blackhole, 192.0.2.99/32],"
        " rollback: [ip, route, del, blackhole, 192.0.2.99/32]}\n"
    )
    run = RunDirectory.created(tmp_path / "runs", "run")
    way_back = write_rollback(run, read_change(lab, folder), lab.topology, Layout())
    told = (way_back / "README.md").read_text()
    assert "ip route del blackhole 192.0.2.99/32" in told
    assert '"fw1:ens4", "r1:ens3"' in told


# ---- what a verdict means


@pytest.mark.parametrize(
    ("verdict", "restored", "mode", "inconclusive", "expected"),
    [
        ("PASS", True, "enforce", "fail", Decision(0, "", Event.ON_PASS)),
        ("FAIL", True, "enforce", "pass", Decision(1, "", Event.ON_FAIL)),
        ("INCONCLUSIVE", True, "enforce", "fail", Decision(3)),
        ("PASS", None, "enforce", "fail", Decision(3)),
        ("FAIL", None, "enforce", "fail", Decision(1, "", Event.ON_FAIL)),
        ("INCONCLUSIVE", True, "enforce", "pass", Decision(0)),
        ("FAIL", True, "observe", "fail", Decision(0, "only observed: this gate would have ended with 1 (FAIL)")),
        ("PASS", True, "observe", "fail", Decision(0, "only observed")),
    ],
)
def test_decisions(verdict, restored, mode, inconclusive, expected):
    decision = decided(verdict, restored=restored, mode=Mode(mode), inconclusive=Inconclusive(inconclusive))
    assert decision == expected


def test_a_network_that_was_not_restored_is_told_in_every_mode():
    for mode in Mode:
        decision = decided("PASS", restored=False, mode=mode, inconclusive=Inconclusive.PASS)
        assert decision.exit_code == 4
        assert decision.event is None
    warned = decided("INCONCLUSIVE", restored=True, mode=Mode.ENFORCE, inconclusive=Inconclusive.WARN)
    assert warned.exit_code == 0
    assert "warning" in warned.note


# ---- commands


def test_a_command_has_words_and_no_shell(tmp_path):
    argv = words("printf '%s|' \"$HOME\" ';' `id`", "--on-fail")
    run = ran("on-fail", argv, {}, tmp_path / "log")
    assert run.succeeded
    assert run.output_tail == "$HOME|;|`id`|"


def test_what_a_command_did_is_kept(tmp_path):
    argv = ("sh", "-c", 'echo "$TESTBED_VERDICT"; seq 5000; exit 7')
    run = ran("on-fail", argv, {"TESTBED_VERDICT": "FAIL"}, tmp_path / "log")
    assert run.status == 7
    assert not run.succeeded
    assert (tmp_path / "log").read_text().startswith("FAIL\n1\n")
    assert len(run.output_tail) <= 4096
    assert run.output_tail.endswith("5000\n")
    assert "ended with status 7" in run.told


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path):
    run = ran("on-pass", ("sh", "-c", "sleep 600 & echo $!; wait"), {}, tmp_path / "log", seconds=0.3)
    assert run.status is None
    assert "was ended after" in run.told
    child = Path("/proc") / (tmp_path / "log").read_text().strip()
    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(process: Path) -> bool:
    try:
        return (process / "stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_that_is_not_there_is_told(tmp_path):
    run = ran("on-pass", ("/nowhere/program",), {}, tmp_path / "log")
    assert not run.succeeded
    assert "could not be started: No such file" in run.told
    for written in ("", "'open", "a\0b"):
        with pytest.raises(InvalidInput):
            words(written, "--on-pass")
