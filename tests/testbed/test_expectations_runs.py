"""What is declared and what becomes of it, for real: shadows of the quick lab, and a config repository made here."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from testbed.rejudge import read_run, rejudged, under
from testbed.verdict_file import VerdictFile
from testbed.whatif import Answer, Question, answered
from tests.testbed.quick_lab import RULES, quick_lab
from tests.testbed.test_gate_revisions import Configs

ROOT = Path(__file__).parents[2]
OPENS = "-A FORWARD -p tcp -m tcp --dport 8443 -j ACCEPT\n"
DECLARED = """\
must:
  - name: the new API
    match: {service: tcp/8443, source: 198.51.100.0/24, destination: 10.1.0.11}
    becomes: denied -> permitted
"""
CLOSED = """\
must:
  - name: the old service closes
    match: {service: udp/5001}
    becomes: permitted -> denied
"""
WAIVER = """\
waivers:
  - finding: {kpi: disposition, class: other, node: fw1, file: "*/iptables.rules"}
    owner: network team
    reason: it moves in December
    expires: 2026-12-31
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """The quick lab, where `open` opens tcp/8443, and `remark` declares so and does nothing of the kind."""
    folder = quick_lab(tmp_path_factory.mktemp("declared") / "quick")
    for name, rules in (("open", RULES.format(more=OPENS)), ("remark", "# a remark\n" + RULES.format(more=""))):
        change = folder / "changes" / name
        (change / "configs/fw1").mkdir(parents=True)
        (change / "configs/fw1/iptables.rules").write_text(rules)
        (change / "expect.yaml").write_text(DECLARED)
    return folder


def asked(lab: Path, change: str, **options) -> Answer:
    question = Question(str(lab), lab / "changes" / change, lab.parent / "runs", **options)
    return answered(question, Console(quiet=True))


def test_a_change_that_opens_what_it_declares_passes_and_the_access_is_probed(lab):
    found = asked(lab, "open", preflight_only=True)
    (entry,) = found.verdict.expectations
    assert (found.exit_code, entry.state) == (0, "met")
    assert entry.evidence == ("1 probe timed out → permitted",)
    assert (entry.file, entry.line) == ("changes/open/expect.yaml", 2)
    opened = [one for one in found.verdict.preflight.changed if one.change == "opened"]
    assert [(one.destination, one.wanted) for one in opened] == [("10.1.0.11:8443", True)]
    # and without the declaration it is news, as ever
    run = read_run(found.run.path)
    nothing = lab / "nothing.yaml"
    nothing.write_text("must: []\n")
    untold = rejudged(under(run, None, nothing)).verdict
    assert "newly opened: tcp/8443" in untold.reason
    assert "newly opened" not in found.verdict.reason


def test_what_is_declared_and_absent_fails_though_no_flow_and_no_rule_has_to_do_with_it(lab):
    found = asked(lab, "remark", preflight_only=True)
    (entry,) = found.verdict.expectations
    assert (found.exit_code, entry.state) == (1, "not_met")
    assert found.verdict.reason.startswith("declared and not so: the new API")
    assert "still timed out: 198.51.100.1 → 10.1.0.11 port 8443" in found.verdict.reason


def again(run: Path, text: str, folder: Path) -> VerdictFile:
    """The run judged again with these expectations."""
    path = folder / "other.yaml"
    path.write_text(text)
    return rejudged(under(read_run(run), None, path)).verdict


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"baseline": 2, "treatment": 2}, {"pairs": 6}])
def test_what_was_replayed_is_held_to_declarations_and_waivers(lab, tmp_path, options):
    (tmp_path / "closed.yaml").write_text(CLOSED)
    met = asked(lab, "drop", expect=tmp_path / "closed.yaml", today=date(2026, 11, 25), **options)
    assert (met.exit_code, met.verdict.verdict) == (0, "PASS")
    assert met.verdict.reason == "20 flows changed as declared; nothing else gates"
    assert [(one.flow_class, one.verdict) for one in met.verdict.classes] == [("other", "PASS")]
    run = met.run.path
    assert rejudged(read_run(run)).verdict.document() == met.verdict.document()
    undeclared = again(run, "must: []\n", tmp_path)
    assert (undeclared.verdict, undeclared.findings[0].blame.line) == ("FAIL", 6)
    other = again(run, CLOSED.replace("denied", "reset"), tmp_path)
    assert (other.verdict, other.expectations[0].state) == ("FAIL", "not_met")
    waived = again(run, WAIVER, tmp_path)
    assert (waived.verdict, waived.findings[0].verdict, waived.expectations[0].state) == ("PASS", "WARN", "met")
    late = again(run, WAIVER.replace("2026-12-31", "2026-11-24"), tmp_path)
    assert (late.verdict, late.expectations[0].state) == ("FAIL", "expired")


@pytest.fixture
def configs(tmp_path) -> Configs:
    """A repository with the quick lab; `open` declares and opens, `later` changes something else."""
    repository = Configs(tmp_path / "repo")
    quick_lab(repository.top / "net" / "quick")
    repository.commit("base")
    rules = "net/quick/configs/fw1/iptables.rules"
    for tag, path, text in (
        ("broken", "net/quick/expect.yaml", DECLARED.replace("10.1.0.11", "10.1.0.10/24")),
        ("declared", "net/quick/expect.yaml", f"{DECLARED}{WAIVER}"),
        ("remark", rules, "# a remark\n" + RULES.format(more="")),
        ("later", rules, "# two\n" + RULES.format(more="")),
    ):
        repository.put(path, text)
        repository.commit(tag)
    return repository


def gate(configs: Configs, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "testbed", "gate", "--repo", configs.top, "--runs", tmp_path / "runs", *words]
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_static_gate_tells_a_wrong_declaration_on_its_line(configs, tmp_path):
    done = gate(configs, tmp_path, "--static", "--base", "base", "--head", "broken")
    assert done.returncode == 2
    assert "net/quick/expect.yaml:3:" in done.stderr
    assert "host bits" in done.stderr


@pytest.mark.slow
def test_the_gate_tells_on_the_line_of_the_repository_what_is_declared_and_absent(configs, tmp_path):
    out = {name: tmp_path / name for name in ("junit", "sarif", "markdown", "codequality")}
    files = [word for name, path in out.items() for word in (f"--{name}", str(path))]
    done = gate(configs, tmp_path, "--base", "base", "--head", "remark", "--preflight-only", "--github", *files)
    assert done.returncode == 1, done.stdout + done.stderr
    (result,) = json.loads(out["sarif"].read_text())["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("net/quick/expect.yaml", 2)
    failed = [case for case in ET.parse(out["junit"]).iter("testcase") if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["the new API"]
    assert "| ❌ not so | must | the new API: " in out["markdown"].read_text()
    assert "| absent | waiver | waiver 1: " in out["markdown"].read_text()
    assert json.loads(out["codequality"].read_text())[0]["location"]["lines"]["begin"] == 2
    assert "::error file=net/quick/expect.yaml,line=2," in done.stdout


@pytest.mark.slow
def test_what_an_older_change_declared_is_not_asked_of_a_new_one(configs, tmp_path):
    done = gate(configs, tmp_path, "--base", "remark", "--head", "later", "--preflight-only", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one["kind"] for one in json.loads(done.stdout)["expectations"]] == ["waiver"]
