"""A verdict in pairs as a person sees it: the summary, the page, and what is to be done next."""

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from analysis.words import in_short, kpi_label, percent
from testbed.advice import MOST_PAIRS, doubts, next_steps, pairs_needed
from testbed.report import render
from testbed.report.effect_rows import WIDTH, effect_row, gravest_first, share_of
from testbed.report.timeline import timeline
from testbed.summary import print_summary
from testbed.verdict_file import EffectEntry, PairedEntry, VerdictFile, read_verdict
from tests.testbed.sample_pairs import LATENESS, LOST, write
from tests.testbed.test_report import HOSTILE, Elements, browser  # noqa: F401  a fixture

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.none()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    kinds = ("slow", "unsure", "lost")
    return {kind: write(tmp_path_factory.mktemp(kind), kind, flows=60 if kind == "slow" else 24) for kind in kinds}


def printed(run, width=80):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    print_summary(read_verdict(run), None, console)
    return console.file.getvalue()


def effect(**values):
    usual = {"scope": "class", "subject": "www", "kpi": "response_ns", "tail": False, "flows": 9, "unit": "ns"}
    measured = {"baseline": 10e6, "estimate": 14e6, "interval_low": 13e6, "interval_high": 16e6, "limit": 15e6}
    return EffectEntry(**{**usual, **measured, "answer": "undecided", **values})


@pytest.mark.parametrize("width", [80, 100])
def test_the_first_lines_say_who_and_how_much_and_which_line(runs, width):
    lines = printed(runs["slow"], width).splitlines()
    assert lines[0].startswith("✗ FAIL")
    assert lines[1].startswith("www response time 4")
    assert "interval" not in lines[1]
    assert any("lb1  frontend www  configs/lb1/haproxy.cfg:26" in line for line in lines)
    assert any(line.startswith("✗ www response time ") and " to " in line for line in lines)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 26


def test_the_summary_tells_of_classes_pairs_smallest_effects_and_triage(runs):
    text = printed(runs["slow"], 200)
    assert "1 of 3 worse: www (high)" in text
    assert "8 judged" in text
    assert "found four times of five" in text
    assert "triage, does not gate" in text


def test_windows_that_do_not_count_are_told_with_the_reason_and_what_to_do(runs):
    text = printed(runs["lost"], 200)
    assert f"{len(LOST)} windows did not count ({LATENESS})" in text
    assert "quieter machine" in text


def test_a_doubt_names_its_limit_and_a_number_of_pairs_or_none(runs):
    verdict = read_verdict(runs["unsure"])
    (doubt,) = doubts(verdict)
    assert (doubt.subject, doubt.kpi) == ("www", "response_ns")
    steps = " ".join(next_steps(verdict))
    assert "response_ns in policy.yaml" in steps or "--pairs" in steps


def test_what_was_decided_needs_no_advice(runs):
    assert next_steps(read_verdict(runs["slow"])) == ()


def test_fewer_pairs_are_needed_the_farther_the_estimate_is_from_its_limit():
    paired = PairedEntry(asked=8, pairs=8, controlled=True)
    near, far = (pairs_needed(effect(estimate=at, interval_high=at + 3e6), paired) for at in (14e6, 12.5e6))
    assert 8 < far < near
    assert pairs_needed(effect(estimate=15e6), paired) is None
    assert pairs_needed(effect(estimate=14.9e6), paired) > MOST_PAIRS


def test_twice_the_interval_needs_about_four_times_the_pairs():
    paired = PairedEntry(asked=8, pairs=8, controlled=True)
    one, two = (
        pairs_needed(effect(unit="ratio", baseline=0, limit=0.04, estimate=0.02, interval_high=0.02 + w), paired)
        for w in (0.025, 0.05)
    )
    assert two / one == pytest.approx(4, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["ns", "ratio", "count"]))
def test_any_numbers_can_be_drawn_and_advised_on(baseline, estimate, low, high, limit, unit):
    one = effect(
        baseline=baseline, estimate=estimate, interval_low=low, interval_high=high, limit=limit, unit=unit, before=low
    )
    row = effect_row(one, str)
    assert row.plot is None or 0 <= row.plot.start <= row.plot.end <= WIDTH
    needed = pairs_needed(one, PairedEntry(asked=8, pairs=8, controlled=True))
    assert needed is None or needed > 8
    assert gravest_first([one, effect()])


def test_a_share_is_the_part_of_what_is_allowed_whichever_way_a_kpi_counts():
    assert share_of(effect(), 15e6) == 1
    assert share_of(effect(baseline=100.0, limit=90.0), 95.0) == 0.5
    assert share_of(effect(limit=10e6), 11e6) == math.inf


def sections(run):
    page = Elements(render(run))
    return page, [attrs["id"] for tag, attrs in page.tags if tag in ("h1", "h2")]


def test_the_page_of_a_failure_begins_with_the_cause_then_what_is_worse(runs):
    page, ids = sections(runs["slow"])
    assert ids[:5] == ["reason", "cause", "effects", "findings", "affected"]
    assert {"pairs", "suspects"} < set(ids)
    assert "triage, does not gate" in page.text
    assert "The smallest effect that 8 pairs would see" in page.text


def test_an_inconclusive_page_says_what_to_do_next(runs):
    _, ids = sections(runs["unsure"])
    assert ids[:2] == ["reason", "next"]
    page, _ = sections(runs["lost"])
    assert "window 11, A of pair 2: " + LATENESS in page.text


def test_every_picture_has_words_and_every_table_headers(runs):
    page, _ = sections(runs["slow"])
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all(attrs.get("role") == "img" or attrs.get("aria-hidden") == "true" for attrs in pictures)
    count = {name: sum(tag == name for tag, _ in page.tags) for name in ("title", "desc", "table", "thead")}
    assert count["desc"] >= sum(attrs.get("role") == "img" for attrs in pictures)
    assert count["table"] == count["thead"]
    shapes = {attrs["class"] for attrs in pictures if attrs.get("class") in ("inferior", "undecided", "non_inferior")}
    assert {"inferior", "non_inferior"} <= shapes


def test_hostile_names_stay_text_in_what_pairs_add(tmp_path):
    page = Elements(render(write(tmp_path, "slow", flows=10, text=lambda text: text + "".join(HOSTILE))))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert "1337" not in page.text
    assert not {"\u202e", "\x00", "\x1b"} & set(page.text)


def test_long_lists_are_capped_with_a_count_of_the_rest(runs, tmp_path):
    verdict = read_verdict(runs["slow"]).document()
    one = next(entry for entry in verdict["paired"]["effects"] if entry["answer"] == "inferior")
    many = [{**one, "scope": "flow", "subject": f"flow-{number}"} for number in range(3000)]
    verdict["paired"]["effects"] += many
    suspect = {"kpi": "response_ns", "q_value": 0.01, "label": "triage, not gating"}
    verdict["paired"]["suspects"] = [{**suspect, "flow_id": f"flow-{number}"} for number in range(3000)]
    (tmp_path / "verdict.json").write_text(VerdictFile.model_validate(verdict).model_dump_json(by_alias=True))
    page = render(tmp_path)
    assert len(page) < 700_000
    single = sum(each["scope"] == "flow" for each in verdict["paired"]["effects"])
    assert f"The gravest 250; {single - 250} more" in page
    assert f"{3000 + len({each['flow_id'] for each in verdict['paired']['odd']}) - 150} more are in" in page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_page_in_pairs_fits_and_complains_of_nothing(runs, browser, width, scheme):  # noqa: F811
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.set_content(render(runs["unsure"]))
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert complaints == []


def test_many_windows_are_drawn_without_numbers_on_each_other(runs):
    windows = read_verdict(runs["slow"]).windows
    drawn = timeline(windows)
    assert not drawn.roomy
    assert timeline(windows[:9]).roomy
    assert timeline(windows * 6).every > drawn.every


def test_words_of_effects():
    said = "www response time 3 ms → 6 ms (+100 %)"
    assert in_short(f"{said}; on average 3 ms → 6 ms (90 % interval 5 ms to 7 ms, limit 4 ms) (and 2 more)") == (
        f"{said} (and 2 more)"
    )
    assert in_short("a timeout (refused); on average") == "a timeout (refused); on average"
    assert kpi_label("response_ns", tail=True) == "response time of the slowest tenth"
    assert kpi_label("unheard_of") == "unheard_of"
    assert percent(1, 550, 54_900) == "+54,900 %"


def test_what_was_declared_stands_on_the_page_and_what_nothing_tested_is_to_be_done_next(runs, tmp_path):
    verdict = read_verdict(runs["unsure"]).document()
    said = {"kind": "must", "file": "expect.yaml", "declared": "tcp/80 becomes permitted", "evidence": ["12 flows did"]}
    verdict["expectations"] = [
        {**said, "name": "open web", "state": "met", "line": 3},
        {**said, "name": "open ftp", "state": "not_tested", "line": 7, "evidence": []},
    ]
    (tmp_path / "verdict.json").write_text(VerdictFile.model_validate(verdict).model_dump_json(by_alias=True))
    page, ids = sections(tmp_path)
    assert ids.index("expectations") < ids.index("findings")
    assert "12 flows did" in page.text
    assert next_steps(read_verdict(tmp_path))[0].startswith("Nothing tested open ftp")
