import io

import pytest
from rich.console import Console

from testbed.summary import print_summary
from testbed.verdict_file import VerdictFile, read_verdict
from testbed.visible import visible
from tests.testbed.sample_run import write


def printed(run, *, terminal=False, width=80):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system="standard")
    print_summary(read_verdict(run.path), run.path / "report.html", console)
    return console.file.getvalue()


def test_a_failure_says_what_and_which_line_and_where_to_read_on(tmp_path):
    run = write(tmp_path)
    text = printed(run)
    lines = text.splitlines()
    assert lines[0].startswith("✗ FAIL")
    assert lines[1] == "118 of 118 checkout flows no longer complete: timeout (and 3 more findings)"
    assert "fw1  filter FORWARD rule 5  configs/fw1/iptables.rules:18" in text
    assert "--dport 443 -m conntrack --ctstate NEW -j DROP" in text
    assert "118 → 0 of 118" in text
    assert "network as before" in text
    assert str(run.path / "report.html") in text
    assert 12 <= len(lines) <= 25


@pytest.mark.parametrize(("kind", "first"), [("pass", "✓ PASS"), ("unsure", "? INCONCLUSIVE")])
def test_the_verdict_stands_first(tmp_path, kind, first):
    assert printed(write(tmp_path, kind)).startswith(first)


def test_a_pipe_gets_plain_text_without_wrapping(tmp_path):
    assert "\x1b" not in printed(write(tmp_path), terminal=False)


def test_a_terminal_gets_colour_unless_no_color_is_set(tmp_path, monkeypatch):
    run = write(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m" in printed(run, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in printed(run, terminal=True)
    assert "31m" not in printed(run, terminal=True)


def test_text_of_others_neither_drives_the_terminal_nor_is_markup(tmp_path):
    text = printed(write(tmp_path, text=lambda text: f"[red]{text}[/]\x1b]0;owned\x07\u202e"), terminal=True)
    assert "\x1b]" not in text
    assert "\u202e" not in text
    assert "\\x1b]0;owned\\x07" in text
    assert "[red]" in text


def test_what_could_not_be_restored_is_loud(tmp_path):
    verdict = read_verdict(write(tmp_path).path)
    document = verdict.document() | {"rollback": {"done": False, "restored": False, "detail": "fw1 said no"}}
    console = Console(file=io.StringIO(), width=80)
    print_summary(VerdictFile.model_validate(document), None, console)
    assert "NOT DONE: fw1 said no" in console.file.getvalue()


def test_visible_text_keeps_letters_of_every_script():
    assert visible("Größe 東京 ✓ a\tb\n") == "Größe 東京 ✓ a\tb\n"
    assert visible("\x1b[2J\u202e\udcff\x00") == "\\x1b[2J\\u202e\\udcff\\x00"
