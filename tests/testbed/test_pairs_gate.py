"""The gate judges by pairs as the what-if does, and refuses what does not go together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.cli.gate import gate
from testbed.cli.whatif import whatif
from tests.testbed.pairs_lab import BLAMED, LETS, pairs_lab
from tests.testbed.quick_lab import RULES

RULES_FILE = Path("quick/configs/fw1/iptables.rules")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preflight-only", "--pairs", "6"], "--preflight-only replays no window"),
        (["--budget", "60", "--treatment", "3"], "--treatment counts windows in a row"),
        (["--speed", "5", "--window", "1"], "give one of --speed and --window"),
        (["--design", "duet", "--treatment", "3"], "--design tells how pairs are played"),
        (["--pairs", "5"], "5 is not in the range 6<=x<=50"),
    ],
)
@pytest.mark.parametrize("command", [whatif, gate])
def test_options_that_do_not_go_together_are_refused(command, options, said, tmp_path):
    needed = [str(tmp_path), "--change", str(tmp_path)] if command is whatif else ["--base", "HEAD"]
    done = CliRunner().invoke(command, [*needed, *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def git(top: Path, *words: str) -> None:
    settings = ("-c", "user.name=test", "-c", "user.email=test@test.example", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(top), *settings, *words], check=True, capture_output=True)


@pytest.fixture
def origin(tmp_path) -> Path:
    """A config repository whose last commit rejects the lab's datagrams."""
    top = tmp_path / "configs"
    (top / "quick").mkdir(parents=True)
    pairs_lab(top / "quick")
    git(tmp_path, "init", "-q", "-b", "main", str(top))
    for rules in (LETS, f"{LETS}{BLAMED}\n"):
        (top / RULES_FILE).write_text(RULES.format(more=rules))
        git(top, "add", "-A")
        git(top, "commit", "-q", "-m", "rules")
    return top


def gated(top: Path, *options: str) -> tuple[int, str, Path]:
    argv = [
        sys.executable,
        "-m",
        "testbed",
        "gate",
        "--repo",
        str(top),
        "--base",
        "HEAD~1",
        "--runs",
        str(top / "runs"),
    ]
    done = subprocess.run([*argv, *options], capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr, next((top / "runs").glob("*/run.json"), top).parent


@pytest.mark.slow
def test_the_gate_judges_by_pairs_and_names_the_line_of_the_repository(origin):
    options = ("--pairs", "6", "--window", "0.2", "--replay", "session", "--max-flows", "12")
    code, said, run = gated(origin, *options)
    assert code == 1, said
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["paired"]["pairs"] >= 6
    assert verdict["findings"][0]["blame"]["text"] == BLAMED
    record = json.loads((run / "run.json").read_text())
    assert (record["plan"]["pairs"], record["flows"]["replayed"]) == (6, 12)


def test_a_budget_too_short_for_the_gate_is_refused_and_leaves_nothing(origin):
    code, said, _ = gated(origin, "--budget", "4", "--window", "0.5")
    assert code == 2
    assert "6 pairs are 23 windows of 0.5 s" in " ".join(said.split())
    assert not list((origin / "runs").glob("*/run.json"))
    assert not list((origin / "runs" / "revisions").glob("*"))
