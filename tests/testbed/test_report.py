from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import sync_playwright

from testbed.report import write_report
from testbed.report.diff import hunk_around, hunk_of_lines
from testbed.report.timeline import timeline
from testbed.verdict_file import ChangedLine
from tests.testbed.sample_run import DIFF, RULE, write

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Elements(HTMLParser):
    """What a parser sees: tags with their attributes, and the text outside script and style."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self._raw = [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        self.text += "" if self._raw else data


def page_of(run):
    return Elements(write_report(run.path).read_text())


@pytest.fixture
def browser():
    if not CHROMIUM.exists():
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def test_the_verdict_comes_first_then_its_cause_then_the_rest(tmp_path):
    page = page_of(write(tmp_path))
    ids = [attrs["id"] for tag, attrs in page.tags if tag in ("h1", "h2")]
    order = ["reason", "cause", "findings", "affected", "classes", "windows", "instrument", "rollback", "inputs"]
    assert ids == order
    assert page.text.index("118 of 118 checkout flows no longer complete") < page.text.index("What caused it")


def test_the_blamed_line_stands_in_its_hunk_with_evidence(tmp_path):
    text = page_of(write(tmp_path)).text
    assert RULE in text
    assert "added by this change at configs/fw1/iptables.rules:18" in text
    assert "-A FORWARD -j REJECT --reject-with icmp-port-unreachable" in text


def test_the_affected_flows_are_exactly_those_of_the_findings(tmp_path):
    page = page_of(write(tmp_path))
    assert sum("data-priority" in attrs for _, attrs in page.tags) == 118 + 96


@pytest.mark.parametrize("kind", ["pass", "unsure"])
def test_a_run_without_failures_has_a_page(tmp_path, kind):
    page = page_of(write(tmp_path, kind))
    assert {"pass": "PASS", "unsure": "INCONCLUSIVE"}[kind] in page.text
    assert "What caused it" not in page.text


def test_a_run_that_was_cut_short_still_has_a_page(tmp_path):
    run = write(tmp_path)
    for name in ("run.json", "flows.parquet", "change.diff"):
        (run.path / name).unlink()
    page = page_of(run)
    assert RULE in page.text
    assert "Affected flows" not in page.text


def test_the_page_has_nothing_that_could_be_fetched(tmp_path):
    page = page_of(write(tmp_path))
    for tag, attrs in page.tags:
        assert tag not in {"iframe", "object", "embed", "img", "base", "form"}
        for name in ("src", "href", "action", "data", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy


HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"' onmouseover='document.title=1' x=\"",
    "{{ 7 * 191 }}{% raw %}",
    "</style><h1>hello</h1><!--",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "\u202e\x00\x1b[31m]]>",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_strings_in_every_field_stay_text(tmp_path, hostile):
    plain = [tag for tag, _ in page_of(write(tmp_path / "plain")).tags]
    page = page_of(write(tmp_path / "hostile", text=lambda text: text + hostile))
    counted = {"script", "style", "img", "h1", "iframe", "link", "meta"}
    assert [tag for tag in plain if tag in counted] == [tag for tag, _ in page.tags if tag in counted]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "1337" not in page.text
    assert not {"\u202e", "\x00", "\x1b"} & set(page.text)


def test_hostile_strings_do_nothing_in_a_real_browser(tmp_path, browser):
    run = write(tmp_path, text=lambda text: text + "".join(HOSTILE[:5]))
    page = browser.new_page()
    page.goto(write_report(run.path).as_uri())
    assert "owned" not in page.title() or page.title().startswith("FAIL")
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.querySelectorAll('h1').length") == 1


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_from_disk_asks_for_nothing_and_fits(tmp_path, browser, width, scheme):
    report = write_report(write(tmp_path).path)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    assert requests == [report.as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_flows_can_be_filtered_and_sorted(tmp_path, browser):
    page = browser.new_page()
    page.goto(write_report(write(tmp_path).path).as_uri())
    page.fill("#flow-filter", "catalogue 2001:db8")
    assert page.text_content("#flow-count") == "29 of 214 flows"
    page.fill("#flow-filter", "")
    page.select_option("#flow-priority", "critical")
    assert page.text_content("#flow-count") == "118 of 214 flows"
    page.select_option("#flow-priority", "")
    page.click("#flows th:nth-child(2) button")
    assert page.text_content("#flows tbody tr:first-child td:nth-child(2)") == "catalogue"
    assert page.get_attribute("#flows th:nth-child(2)", "aria-sort") == "ascending"
    page.click("#flows th:nth-child(2) button")
    assert page.text_content("#flows tbody tr:first-child td:nth-child(2)") == "checkout"


@pytest.mark.parametrize("file", ["configs/fw1/iptables.rules", "iptables.rules", "fw1/iptables.rules"])
def test_the_hunk_is_found_by_any_way_to_name_the_file(file):
    hunk = hunk_around(DIFF, "fw1", file, 18)
    assert [line.text for line in hunk.lines if line.blamed] == [RULE]
    assert [line.number for line in hunk.lines] == list(range(14, 23))


def test_another_nodes_file_of_the_same_name_is_not_taken():
    assert hunk_around(DIFF, "fw2", "iptables.rules", 18) is None
    assert hunk_around(DIFF, "fw1", "frr.conf", 18) is None
    assert hunk_around(DIFF, "fw1", "iptables.rules", 99) is None


def test_without_a_diff_the_changed_lines_near_by_are_shown():
    lines = [ChangedLine(node="fw1", file="iptables.rules", line=n, sign="+", text=str(n)) for n in (3, 18, 20)]
    hunk = hunk_of_lines(lines, "configs/fw1/iptables.rules", 18)
    assert [(line.number, line.blamed) for line in hunk.lines] == [(18, True), (20, False)]


@given(st.text(alphabet="+- @,0123456789ab/\n\t\\"), st.integers(0, 30))
def test_no_diff_makes_the_report_fail(diff, line):
    hunk_around("--- a/x/f\n+++ b/x/f\n@@ -1,3 +1,4 @@\n" + diff, "x", "f", line)
    hunk_around(diff, "x", "f", line)


def test_an_empty_chart_has_no_marks():
    assert timeline([]).marks == ()
