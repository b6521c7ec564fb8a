"""What a pipeline reads out of one verdict.json: each format's own rules, and text of others that does nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from testbed.gate.cases import State, cases
from testbed.gate.github import SUMMARY_OCTETS, append_summary, quoted, workflow_commands
from testbed.gate.gitlab import codequality, metrics
from testbed.gate.junit import junit
from testbed.gate.markdown import Around, markdown
from testbed.gate.markup import code, fenced, prose
from testbed.gate.places import EXPECTATION, Layout, Place, fingerprint, line_after, place_of
from testbed.gate.sarif import sarif
from testbed.gate.unchanged import unchanged
from testbed.verdict_file import BlameEntry, ChangedLine, ExpectationEntry, FindingEntry, VerdictFile, read_verdict
from tests.testbed.sample_run import write

LAYOUT = Layout.of_lab("net/shop")
HOSTILE = (
    "a|b <script>alert(1)</script> <!-- --> ``` ~~~ `x` [y](https://evil.example) ![z](http://e.example/p.png) "
    "@everyone #1 !2 **bold** http://evil.example www.evil.example\n"
    "/close\n# head\n- list\n::error::x\r\n%0A\x1b[31m\u202e"
)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, VerdictFile]:
    runs = tmp_path_factory.mktemp("runs")
    made = {kind: write(runs, kind, f"run-{kind}") for kind in ("fail", "pass", "unsure")}
    made["hostile"] = write(runs, "fail", "run-hostile", lambda text: HOSTILE + text)
    read = {name: read_verdict(run.path) for name, run in made.items()}
    return read | {"hostile": declaring(read["hostile"], HOSTILE)}


def declaring(verdict: VerdictFile, text: str) -> VerdictFile:
    """The verdict with an expectation in every state, and the finding of one that is not so."""
    told = [
        ExpectationEntry(
            kind="waiver" if state == "expired" else "must",
            name=f"{text}{state}",
            state=state,
            file="changes/x/expect.yaml",
            line=line,
            text=text,
            declared=text,
            evidence=(text,),
            owner=text if state == "expired" else None,
            expires="2026-11-24" if state == "expired" else None,
        )
        for line, state in enumerate(("met", "not_met", "not_tested", "absent", "expired"), start=2)
    ]
    absent = finding(scope="network", subject=told[1].name, kpi=EXPECTATION, effect=text)
    return verdict.model_copy(update={"expectations": tuple(told), "findings": (absent, *verdict.findings)})


def finding(**fields) -> FindingEntry:
    plain = {
        "finding_id": "1",
        "scope": "class",
        "subject": "web",
        "kpi": "response_ns",
        "unit": "ns",
        "effect": "slow",
    }
    return FindingEntry.model_validate({"verdict": "FAIL", **plain, **fields})


def many(verdict: VerdictFile, count: int) -> VerdictFile:
    blame = {"node": "fw1", "object": "rule", "file": "configs/fw1/iptables.rules", "text": "-j DROP"}
    findings = tuple(
        finding(
            finding_id=str(n), subject=f"class {n}", effect="x" * 300, blame={**blame, "line": n + 1, "object": f"r{n}"}
        )
        for n in range(count)
    )
    return verdict.model_copy(update={"findings": findings})


# ---- places


def test_a_removed_line_is_shown_where_it_stood():
    assert line_after(3, gone=[3], new=[]) == 2
    assert line_after(3, gone=[3], new=[3]) == 3
    assert line_after(1, gone=[1], new=[]) == 1
    assert line_after(5, gone=[2, 5], new=[4]) == 4
    assert line_after(2, gone=[1, 2], new=[1, 2, 3]) == 1


def test_a_culprit_is_placed_by_the_repositorys_path():
    lines = (ChangedLine(node="fw1", file="configs/fw1/a", line=7, sign="-", text="gone"),)
    assert (
        LAYOUT.place(BlameEntry(node="fw1", object="o", file="configs/fw1/a", line=3), lines).path
        == "net/shop/configs/fw1/a"
    )
    gone = LAYOUT.place(BlameEntry(node="fw1", object="o", file="configs/fw1/a", line=7, text="gone"), lines)
    assert gone.removed
    assert gone.line == 6
    assert LAYOUT.place(BlameEntry(node="fw1", object="o", file="/elsewhere/change.yaml", line=2), ()) is None
    moved = replace(LAYOUT, moved={"changes/x/change.yaml:2": ("net/shop/lab.yaml", 40)})
    assert moved.place(BlameEntry(node="r1", object="l", file="changes/x/change.yaml", line=2), ()).line == 40
    outside = Layout(None, "devices")
    assert outside.path("configs/fw1/a") == "devices/fw1/a"
    assert outside.path("lab.yaml") is None


def test_what_is_declared_and_not_so_is_shown_where_it_was_declared(verdicts):
    told = declaring(verdicts["pass"], "the API ")
    absent = told.findings[0]
    assert place_of(absent, told, LAYOUT) == Place("net/shop/changes/x/expect.yaml", 3)
    moved = replace(LAYOUT, moved={"changes/x/expect.yaml:3": ("net/shop/expect.yaml", 3)})
    assert place_of(absent, told, moved) == Place("net/shop/expect.yaml", 3)
    assert place_of(absent, verdicts["pass"], LAYOUT) is None
    states = {case.kpi: case.state for case in cases(told) if case.subject == "expectations"}
    assert list(states.values()) == [State.PASSED, State.FAILED, State.UNDECIDED, State.PASSED, State.PASSED]
    assert sum(case.state is State.FAILED for case in cases(told)) == 1
    (result,) = json.loads(sarif(told, moved))["runs"][0]["results"]
    assert result["ruleId"] == "shadow-testbed/expectation"
    assert "| ❗ expired | waiver |" in markdown(told, moved)


def test_a_fingerprint_holds_the_lines_text_and_not_its_number():
    blame = BlameEntry(node="fw1", object="rule 3", file="configs/fw1/a", line=3, text="-j DROP")
    one = finding(blame=blame)
    moved = finding(blame=blame.model_copy(update={"line": 9, "object": "rule 9"}))
    assert fingerprint(one) == fingerprint(moved)
    assert fingerprint(one) != fingerprint(finding(blame=blame.model_copy(update={"text": "-j REJECT"})))
    assert fingerprint(one) != fingerprint(finding(blame=blame, subject="dns"))


# ---- JUnit


CHILDREN = ["properties", "skipped", "error", "failure", "system-out"]
"""What a case may hold, in the order in which JUnit's schema has it."""


@pytest.mark.parametrize("kind", ["fail", "pass", "unsure", "hostile"])
def test_junit_is_what_jenkins_and_gitlab_read(verdicts, kind):
    root = ET.fromstring(junit(verdicts[kind]))
    assert root.tag == "testsuites"
    (suite,) = root
    told = suite.findall("testcase")
    assert int(suite.get("tests")) == len(told) == len(cases(verdicts[kind]))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute)) == len(suite.findall(f"testcase/{tag}"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp")) or kind == "hostile"
    for case in told:
        tags = [child.tag for child in case]
        assert tags == sorted(tags, key=CHILDREN.index)
        assert {"classname", "name"} <= set(case.keys())
        assert len({"failure", "error", "skipped"} & set(tags)) <= 1
        for entry in case.findall("properties/property"):
            assert set(entry.keys()) == {"name", "value"}


def test_junit_tells_failures_with_their_culprit_and_evidence(verdicts):
    root = ET.fromstring(junit(verdicts["fail"]))
    (failure,) = root.findall(".//testcase[@classname='shop.checkout'][@name='disposition']/failure")
    assert "118 of 118 checkout flows" in failure.get("message")
    assert "configs/fw1/iptables.rules:18" in failure.text
    assert "rule counter" in failure.text
    (slow,) = root.findall(".//testcase[@classname='shop.catalogue'][@name='response time']")
    told = {entry.get("name"): entry.get("value") for entry in slow.findall("properties/property")}
    assert {"before", "after", "estimate", "priority"} <= told.keys()
    assert slow.find("failure") is not None


def test_what_was_not_measured_is_skipped_and_an_unfit_instrument_is_an_error(verdicts):
    states = {(case.subject, case.kpi): case for case in cases(verdicts["fail"])}
    assert states["checkout", "response_ns"].state is State.UNDECIDED
    unsure = {(case.subject, case.kpi): case for case in cases(verdicts["unsure"])}
    assert unsure["instrument", "valid"].state is State.INVALID
    assert "lateness" in unsure["instrument", "valid"].message
    assert {case.state for case in unsure.values() if case.subject == "dns"} == {State.UNDECIDED}
    assert not any(case.state is State.FAILED for case in cases(verdicts["pass"]))


def test_no_fail_is_left_uncounted(verdicts):
    bare = verdicts["pass"].model_copy(update={"verdict": "FAIL", "reason": "it broke", "findings": (), "classes": ()})
    assert [case.message for case in cases(bare) if case.state is State.FAILED] == ["it broke"]
    network = bare.model_copy(update={"findings": (finding(scope="network", subject="network", kpi="syntax"),)})
    assert [case.subject for case in cases(network) if case.state is State.FAILED] == ["network"]


# ---- SARIF


def test_sarif_has_a_result_for_each_blamed_line_and_keeps_to_its_schema(verdicts):
    document = json.loads(sarif(verdicts["fail"], LAYOUT))
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-2.1.0.json")
    (run,) = document["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(rules) == len(set(rules))
    blamed = [f for f in verdicts["fail"].findings if f.blame and f.verdict != "INFO"]
    assert len(run["results"]) == len(blamed) > 0
    for result in run["results"]:
        assert result["ruleId"] == rules[result["ruleIndex"]]
        assert result["level"] in ("error", "warning")
        assert result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"] == {"uri": "net/shop/configs/fw1/iptables.rules", "uriBaseId": "%SRCROOT%"}
        assert place["region"]["startLine"] == 18
        assert re.fullmatch("[0-9a-f]{64}", result["partialFingerprints"]["shadowTestbed/v1"])
    assert json.loads(sarif(verdicts["pass"], LAYOUT))["runs"][0]["results"] == []


def test_sarif_stays_within_what_github_takes(verdicts):
    (run,) = json.loads(sarif(many(verdicts["fail"], 6000), LAYOUT))["runs"]
    assert len(run["results"]) == 5000


# ---- GitHub


COMMAND = re.compile(r"::(error|warning|notice)( (?:[a-z]+=[^,:\r\n]*)(?:,[a-z]+=[^,:\r\n]*)*)?::[^\r\n]*")


@pytest.mark.parametrize("kind", ["fail", "hostile", "unsure"])
def test_annotations_are_one_line_each_and_cannot_be_broken_out_of(verdicts, kind):
    told = workflow_commands(verdicts[kind], LAYOUT)
    assert told
    for line in told:
        assert COMMAND.fullmatch(line), line
    if kind == "fail":
        assert told[0].startswith("::error file=net/shop/configs/fw1/iptables.rules,line=18,title=FAIL%3A block-https")


def test_the_worst_ten_are_annotated_and_the_others_counted(verdicts):
    told = workflow_commands(many(verdicts["fail"], 25), LAYOUT)
    assert len(told) == 11
    assert told[-1] == "::notice::15 more in the summary"
    assert workflow_commands(verdicts["pass"], LAYOUT) == ()


def test_a_log_cannot_speak_to_the_runner():
    text = quoted("::error::not from us")
    first, middle, last = text.splitlines()
    assert re.fullmatch("::stop-commands::[0-9a-f]{32}", first)
    assert middle == "::error::not from us"
    assert last == f"::{first.removeprefix('::stop-commands::')}::"


def test_a_summary_is_added_and_never_too_large(tmp_path):
    file = tmp_path / "summary"
    append_summary("one", file)
    append_summary("two", file)
    assert file.read_text() == "one\n\ntwo\n\n"
    append_summary("x" * SUMMARY_OCTETS, file)
    assert file.stat().st_size < 1000
    assert "does not fit" in file.read_text()


# ---- GitLab


def test_code_quality_has_the_keys_that_gitlab_wants(verdicts):
    entries = json.loads(codequality(verdicts["fail"], LAYOUT))
    assert entries
    for entry in entries:
        assert entry.keys() == {"description", "check_name", "fingerprint", "severity", "location"}
        assert entry["location"] == {"path": "net/shop/configs/fw1/iptables.rules", "lines": {"begin": 18}}
    assert entries[0]["severity"] == "blocker"
    assert json.loads(codequality(verdicts["pass"], LAYOUT)) == []


SAMPLE = re.compile(r'[a-z_][a-z0-9_]*\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+\} (?:[-+]?Inf|-?[0-9.e+-]+)')


@pytest.mark.parametrize("kind", ["fail", "pass", "hostile"])
def test_metrics_are_openmetrics_text(verdicts, kind):
    lines = metrics(verdicts[kind]).splitlines()
    assert lines[-1] == "# EOF"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    samples = [line for line in lines if not line.startswith("#")]
    assert samples
    for line in samples:
        assert SAMPLE.fullmatch(line), line
        assert line.split("{")[0] in families
    word = "PASS" if kind == "pass" else "FAIL"
    assert any(f'word="{word}"}} 1.0' in line for line in samples)


# ---- Markdown


OURS = {"details", "/details", "summary", "/summary"}


def read(text: str):
    """The Markdown as GitHub's flavour is parsed: its tokens, and every HTML tag that would be rendered."""
    parser = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").enable("strikethrough")
    tokens = parser.parse(text)
    flat = [inner for token in tokens for inner in (token, *(token.children or ()))]
    tags = [tag for t in flat if t.type.startswith("html") for tag in re.findall(r"<(/?[a-zA-Z!][\w-]*)", t.content)]
    return flat, tags


def harmless(text: str) -> None:
    flat, tags = read(text)
    assert set(tags) - {"!--"} <= OURS
    assert tags.count("!--") == 1
    assert tags.count("details") == tags.count("/details")
    kinds = {token.type for token in flat}
    assert not kinds & {"link_open", "image", "blockquote_open", "ordered_list_open", "hr", "code_block"}
    assert sum(t.type == "heading_open" for t in flat) == 1
    blocks = [token.children or () for token in flat if token.type == "inline"]
    said = "\n".join("".join(t.content for t in block if t.type == "text") for block in blocks)
    assert not re.search(r"[@#!]\w|://|\bwww\.", said)


@pytest.mark.parametrize("kind", ["fail", "pass", "unsure", "hostile"])
def test_nothing_of_others_breaks_out_of_the_comment(verdicts, kind):
    around = Around(report=HOSTILE, note=HOSTILE, hooks=(HOSTILE,), rollback=True)
    text = markdown(verdicts[kind], LAYOUT, around)
    harmless(text)
    assert not any(line.startswith("/") for line in text.splitlines() if line)


def test_a_comment_begins_with_its_marker_and_names_the_cause(verdicts):
    text = markdown(verdicts["fail"], LAYOUT)
    assert text.startswith("<!-- shadow-testbed:shop -->\n")
    assert "`net/shop/configs/fw1/iptables.rules:18`" in text
    assert "```diff\n+-A FORWARD -i ens3 -p tcp" in text
    assert markdown(verdicts["fail"], LAYOUT, Around(comment_id="a -->b")).startswith("<!-- shadow-testbed:a-b -->\n")


def test_a_comment_is_cut_to_its_length_and_says_so(verdicts):
    whole = markdown(verdicts["fail"], LAYOUT)
    assert "Cut to" not in whole
    for most in (1000, 3000, len(whole) - 1):
        text = markdown(verdicts["fail"], LAYOUT, None, most)
        assert len(text) <= most
        assert "left out" in text
        harmless(text)
    assert len(markdown(many(verdicts["fail"], 3000), LAYOUT)) <= 60_000
    with pytest.raises(ValueError, match="at least 1,000"):
        markdown(verdicts["fail"], LAYOUT, None, 999)


@settings(max_examples=120, deadline=None)
@given(st.text(max_size=80) | st.text("`|\\<>[]()!@#*_~-+:/.w\n&;\" '=", max_size=80))
def test_any_text_is_only_text(text):
    table = f"| a |\n|---|\n| {prose(text)} {code(text)} |"
    flat, tags = read(f"before **{prose(text)}** {code(text)}\n\n{table}\n\n{fenced(text)}\n\nafter")
    assert tags == []
    kinds = [token.type for token in flat]
    assert not {"link_open", "image", "heading_open", "hr", "code_block"} & set(kinds)
    assert kinds.count("td_open") == kinds.count("th_open") == 1
    assert kinds.count("fence") == 1
    assert kinds[-2:] == ["text", "paragraph_close"]
    assert flat[-2].content == "after"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_valid_documents(text):
    blame = {"node": text, "object": text, "file": "configs/fw1/a b", "line": 3, "text": text, "evidence": [text]}
    verdict = unchanged(text, text, "2026-11-25T04:00:00Z", text).model_copy(
        update={
            "verdict": "FAIL",
            "findings": (finding(subject=text, effect=text, kpi=text, flows=(text,), blame=blame),),
        }
    )
    ET.fromstring(junit(verdict))
    (result,) = json.loads(sarif(verdict, LAYOUT).encode("utf-8"))["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "net/shop/configs/fw1/a%20b"
    json.loads(codequality(verdict, LAYOUT))
    for line in metrics(verdict).splitlines():
        assert line.startswith("#") or SAMPLE.fullmatch(line)
    for line in workflow_commands(verdict, LAYOUT):
        assert COMMAND.fullmatch(line)
    harmless(markdown(verdict, LAYOUT))


def test_where_nothing_changed_the_documents_say_so():
    verdict = unchanged("shop", "a..b", "2026-11-25T04:00:00Z", "nothing changed")
    root = ET.fromstring(junit(verdict))
    assert root.get("failures") == "0"
    assert root.find(".//testcase[@name='valid']/skipped") is not None
    assert json.loads(codequality(verdict, LAYOUT)) == []
    assert markdown(verdict, LAYOUT).startswith("<!-- shadow-testbed:shop -->")
