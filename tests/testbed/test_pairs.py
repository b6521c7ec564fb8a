"""Experiments in pairs for real: a bad change, a harmless one and one that cannot be undone, at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from analysis.pairs.design import FLOOR, moments, order
from replay.shards import processors
from testbed.measured_record import read_measured
from testbed.packet_flows import Manner, Mode
from testbed.pairs.designs import LEAST_PROCESSORS
from testbed.rejudge import read_run, rejudged
from testbed.store import RunDirectory
from testbed.verdict_file import VerdictFile, read_verdict
from testbed.whatif import Question, answered
from tests.testbed.pairs_lab import BLAMED, HTTP_FLOWS, pairs_lab
from tests.testbed.quick_lab import FLOWS

SIX = ("--pairs", "6", "--window", "0.2", "--mode", "session")
ARMS = {"A", "B", "A'"}


@dataclass(frozen=True)
class Ran:
    """One `testbed whatif` that came to its end."""

    code: int
    said: str
    folder: Path
    seconds: float

    @property
    def verdict(self) -> VerdictFile:
        return read_verdict(self.folder)

    @property
    def kpis(self) -> pd.DataFrame:
        return RunDirectory(self.folder).read_table("kpis")

    @property
    def events(self) -> list[str]:
        return [f"{one['event']}: {one['what']}" for one in RunDirectory(self.folder).events()]

    def ended_well(self, protocol: int) -> dict[int, int]:
        """By window of a pair, how many flows of the protocol ended as captured."""
        flows = RunDirectory(self.folder).read_table("flows")
        own = flows.loc[flows["protocol"] == protocol, "flow_id"]
        part = self.kpis[(self.kpis["pair"] >= 0) & self.kpis["flow_id"].isin(own)]
        return part.groupby("window")["as_expected"].sum().astype(int).to_dict()


def asked(lab: Path, change: str, *options: str) -> Ran:
    runs = lab / "runs" / f"{change}-{'-'.join(options)[:60]}"
    argv = [sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / change)]
    started = time.monotonic()
    done = subprocess.run(
        [*argv, "--runs", str(runs), *options], capture_output=True, text=True, timeout=240, check=False
    )
    found = sorted(runs.glob("*/run.json"))
    folder = found[0].parent if found else runs
    return Ran(done.returncode, done.stdout + done.stderr, folder, time.monotonic() - started)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "quick"
    folder.mkdir()
    return pairs_lab(folder)


@pytest.fixture(scope="module")
def ran(lab) -> dict[str, Ran]:
    """They mostly wait, so that three at a time take little longer than one; the last on two shadows at once."""
    designs = {"reject": "alternate", "remark": "auto", "stuck": "duet"}
    with ThreadPoolExecutor(len(designs)) as pool:
        runs = pool.map(lambda change: asked(lab, change, *SIX, "--design", designs[change]), designs)
        return dict(zip(designs, runs, strict=True))


def test_a_bad_change_fails_by_its_line(ran):
    bad = ran["reject"]
    assert (bad.code, bad.verdict.verdict) == (1, "FAIL"), bad.said
    blame = bad.verdict.blamed[0].blame
    assert (blame.node, blame.text) == ("fw1", BLAMED)
    assert (bad.folder / "rollback").is_dir()
    assert bad.verdict.paired.invalid == ()


def test_a_harmless_change_passes_though_everything_was_reloaded_in_every_pair(ran):
    good = ran["remark"]
    assert (good.code, good.verdict.verdict) == (0, "PASS"), good.said
    assert good.verdict.paired.pairs >= FLOOR
    assert good.verdict.paired.controlled
    assert good.verdict.rollback.restored


def test_every_pair_has_each_arm_once_in_the_order_that_the_seed_draws(ran):
    for one in (ran["reject"], ran["remark"]):
        placed = [(window.arm, window.pair) for window in one.verdict.windows if window.arm]
        assert placed[: 3 * FLOOR] == [(each.arm.value, each.pair) for each in order(FLOOR, 0)]
        by_pair = Counter(pair for _, pair in placed)
        assert set(by_pair.values()) == {len(ARMS)}
        assert len({arm for arm, _ in placed}) == len(ARMS)
        assert len({tuple(arm for arm, pair in placed if pair == each) for each in range(FLOOR)}) > 1


def test_the_change_acts_in_every_window_b_and_is_gone_in_every_other(ran):
    bad = ran["reject"]
    arms = {window.window: window.arm for window in bad.verdict.windows if window.arm}
    datagrams = bad.ended_well(17)
    assert {window: count for window, count in datagrams.items() if arms[window] == "B"} == {
        window: 0 for window, arm in arms.items() if arm == "B"
    }
    assert {count for window, count in datagrams.items() if arms[window] != "B"} == {FLOWS}
    assert set(bad.ended_well(6).values()) == {HTTP_FLOWS}, "what the change does not touch is as ever"
    assert (bad.verdict.rollback.done, bad.verdict.rollback.restored) == (True, True)
    assert "restored windows like the 3 baseline ones" in bad.verdict.rollback.detail


def test_every_window_of_a_pair_begins_without_what_another_left(ran):
    for one in ran.values():
        for record in read_measured(RunDirectory(one.folder)).windows:
            left = record["left_connections"], record["left_sessions"]
            assert left == (0, 0), (one.folder.name, record["window"])
            assert record["left_neighbours"] <= 2, "a health check asks for its server at once"


def test_what_pairs_would_find_is_told_before_they_are_played(ran):
    events = ran["remark"].events
    (told,) = [number for number, event in enumerate(events) if event.startswith("foresee: 6 pairs would find four")]
    assert told < min(number for number, event in enumerate(events) if "pair 1 of" in event)
    assert {one.kpi for one in ran["remark"].verdict.paired.smallest} >= {"as_expected_ratio", "first_response_ns"}


def test_lost_windows_are_told_and_their_pairs_played_again(ran):
    for one in (ran["reject"], ran["remark"]):
        lost, paired = one.verdict.paired.lost, one.verdict.paired
        played = {window.pair for window in one.verdict.windows if window.arm}
        assert {each.pair for each in lost} <= played
        assert all(each.reason for each in lost)
        assert len(played) == FLOOR if not lost else len(played) > FLOOR
        assert paired.pairs >= FLOOR


def test_a_rollback_that_fails_amid_the_pairs_is_louder_than_any_verdict(ran):
    stuck = ran["stuck"]
    assert stuck.code == 4
    assert "COULD NOT REVERT stuck" in stuck.said
    assert str(stuck.folder) in stuck.said.replace("\n", "")
    verdict = stuck.verdict
    assert (verdict.rollback.done, verdict.rollback.restored) == (False, False)
    assert "command on fw1" in verdict.rollback.detail
    assert verdict.verdict == "INCONCLUSIVE"
    assert any(window.arm == "B" for window in verdict.windows), "it had been undone before"
    assert (stuck.folder / "report.html").is_file()


def test_two_shadows_play_at_the_same_moments_and_share_one_table(ran):
    stuck = ran["stuck"]
    placed = [window for window in stuck.verdict.windows if window.arm]
    for early, late in zip(placed[::2], placed[1::2], strict=True):
        assert early.pair == late.pair
        assert {early.arm, late.arm} in ({"A", "B"}, {"A", "A'"})
        apart = datetime.fromisoformat(late.started) - datetime.fromisoformat(early.started)
        assert abs(apart.total_seconds()) < 0.1
    shadows = [record["shadow"] for record in read_measured(RunDirectory(stuck.folder)).windows]
    assert shadows == [1, 0] * (len(shadows) // 2)
    expected = [tuple(arm.value for arm in moment.arms) for moment in moments(FLOOR, 0)]
    played = [(late.arm, early.arm) for early, late in zip(placed[::2], placed[1::2], strict=True)]
    assert played == expected[: len(played)]


def test_run_json_says_which_design_was_used_and_why(ran):
    told = {name: json.loads((one.folder / "run.json").read_text())["design"] for name, one in ran.items()}
    assert (told["reject"]["used"], told["reject"]["why"]) == ("alternate", "asked for")
    assert (told["stuck"]["used"], told["stuck"]["why"]) == ("duet", "asked for")
    assert told["stuck"]["pair_variance"]["duet"] > 0
    assert told["reject"]["pair_variance"]["alternate"] > 0
    if processors() < LEAST_PROCESSORS:
        assert told["remark"]["used"] == "alternate"
        assert told["remark"]["why"] == f"{processors()} processors, two shadows at once want {LEAST_PROCESSORS}"


def test_what_goes_as_packets_is_no_duet(lab):
    refused = asked(lab, "remark", "--pairs", "6", "--design", "duet")
    assert refused.code == 2
    assert "what goes as packets is played on one shadow only" in " ".join(refused.said.split())


def test_a_budget_that_replay_alone_exceeds_is_refused_at_once(lab):
    late = asked(lab, "remark", "--budget", "4", "--window", "0.5")
    assert late.code == 2
    assert "6 pairs are 23 windows of 0.5 s, 12 s without anything between them" in " ".join(late.said.split())
    assert not list((lab / "runs").glob("remark---budget*/*/run.json"))


@pytest.mark.slow
def test_as_many_pairs_as_fit_into_the_budget(lab):
    fitted = asked(lab, "remark", "--budget", "45", "--window", "0.2", "--mode", "session")
    assert fitted.code == 0, fitted.said
    paired = fitted.verdict.paired
    assert paired.budget_s == 45.0
    assert paired.pairs >= FLOOR
    assert 30 < fitted.verdict.timings.total_s < 45 + 3


@pytest.mark.slow
def test_a_budget_that_turns_out_too_short_says_what_would_fit(lab):
    late = asked(lab, "remark", "--budget", "12", "--window", "0.2", "--mode", "session")
    assert (late.code, late.verdict.verdict) == (3, "INCONCLUSIVE")
    assert "pairs of windows fit into 12 s, at least 6 are needed: about" in late.verdict.reason
    assert late.verdict.paired.pairs == 0
    assert late.verdict.rollback.restored


@pytest.mark.slow
def test_packets_background_load_and_left_out_flows_have_their_place_in_every_pair(lab):
    bad = asked(lab, "reject", "--pairs", "6", "--window", "0.4", "--background", "2M", "--max-flows", "20")
    assert (bad.code, bad.verdict.verdict) == (1, "FAIL"), bad.said
    assert bad.verdict.blamed[0].blame.text == BLAMED
    record = json.loads((bad.folder / "run.json").read_text())
    pairs = {window.window for window in bad.verdict.windows if window.arm}
    for kind in ("background", "packet_mode"):
        assert pairs <= {window["window"] for window in record[kind]["windows"]}, kind
    assert record["flows"]["replayed"] == 20 + 1, "what goes as packets has no socket and stays"
    assert set(bad.ended_well(50).values()) == {1}, "ESP went through in every window"


@pytest.mark.slow
@pytest.mark.parametrize(("change", "code", "verdict"), [("reject", 1, "FAIL"), ("remark", 0, "PASS")])
def test_two_shadows_at_once_come_to_the_same_verdict(lab, change, code, verdict):
    duet = asked(lab, change, *SIX, "--design", "duet")
    assert (duet.code, duet.verdict.verdict) == (code, verdict), duet.said
    assert duet.verdict.paired.controlled
    assert duet.verdict.paired.pairs >= FLOOR
    assert (duet.verdict.rollback.done, duet.verdict.rollback.restored) == (True, True)
    if change == "reject":
        assert duet.verdict.blamed[0].blame.text == BLAMED


@pytest.mark.slow
def test_where_there_are_processors_a_pilot_decides(lab, monkeypatch):
    """Two processors are said to be four, so that both designs are measured here."""
    monkeypatch.setattr("testbed.experiment.processors", lambda: LEAST_PROCESSORS)
    question = Question(
        str(lab), lab / "changes" / "remark", lab / "runs" / "pilot", pairs=6, window_s=0.2, manner=Manner(Mode.SESSION)
    )
    answer = answered(question, Console(quiet=True))
    told = answer.run.read_json("run.json")["design"]
    assert told["asked"] == "auto"
    assert told["used"] in {"alternate", "duet"}
    if told["why"].startswith("the smaller variance"):
        variance = told["pair_variance"]
        assert variance[told["used"]] == min(variance.values())
        assert len(variance) == 2
    records = read_measured(answer.run).windows
    assert {record["shadow"] for record in records} == {0, 1}
    assert {record["shadow"] for record in records if record["arm"]} == ({0, 1} if told["used"] == "duet" else {0})
    assert answer.exit_code in (0, 3)


@pytest.mark.slow
def test_a_machine_that_is_busy_for_a_while_makes_no_change_bad(lab):
    """Load of our own, begun with the second pair and ended with the fourth."""
    runs = lab / "runs" / "busy"
    argv = [sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / "remark")]
    run = subprocess.Popen([*argv, "--runs", str(runs), "--quiet", *SIX], stdout=subprocess.DEVNULL)
    busy: list[subprocess.Popen[bytes]] = []
    try:
        _await(runs, "pair 2 of")
        busy += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
        _await(runs, "pair 4 of")
    finally:
        for one in busy:
            one.kill()
            one.wait()
        code = run.wait(timeout=240)
    (folder,) = [path.parent for path in runs.glob("*/run.json")]
    verdict = read_verdict(folder)
    assert code in (0, 3), verdict.reason
    assert verdict.instrument.cpu_pressure_percent is not None
    played = {window.pair for window in verdict.windows if window.arm}
    assert len(played) > FLOOR if verdict.paired.lost else len(played) == FLOOR


def _await(runs: Path, what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not any(what in path.read_text() for path in runs.glob("*/events.jsonl")):
        assert time.monotonic() < deadline, f"waited in vain for {what!r}"
        time.sleep(0.1)


def test_runs_in_pairs_are_judged_again_to_the_octet_whatever_hashes_and_threads(ran, tmp_path):
    odd = {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    bad = ran["reject"]
    argv = [sys.executable, "-m", "testbed", "rejudge", str(bad.folder), "--json", "-o", str(tmp_path / "again")]
    done = subprocess.run(argv, env={**os.environ, **odd}, capture_output=True, check=False)
    assert done.returncode == bad.code, done.stderr
    assert done.stdout == (bad.folder / "verdict.json").read_bytes()
    for one in (ran["remark"], ran["stuck"]):
        again = RunDirectory(tmp_path).write_json("again.json", rejudged(read_run(one.folder)).verdict.document())
        assert again.read_bytes() == (one.folder / "verdict.json").read_bytes(), one.folder
