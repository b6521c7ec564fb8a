"""Every wrong lab under tests/golden/bad_labs ends in the error written beside it."""

from pathlib import Path

import pytest

from topologies.load import load_lab
from topologies.located import InvalidLab

CASES = sorted(p for p in (Path(__file__).parents[1] / "golden" / "bad_labs").iterdir() if p.is_dir())


def test_there_are_cases():
    assert len(CASES) >= 25


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_lab_is_told_with_line_and_column(case: Path):
    with pytest.raises(InvalidLab) as raised:
        load_lab(case)
    told = str(raised.value).replace(f"{case}/", "")
    assert told == (case / "expected_error.txt").read_text(encoding="utf-8").rstrip("\n")


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InvalidLab, match="no such folder"):
        load_lab(tmp_path / "nowhere")


def test_a_config_that_links_out_of_the_lab_is_refused(tmp_path):
    lab = tmp_path / "lab"
    (lab / "configs" / "a").mkdir(parents=True)
    (lab / "lab.yaml").write_text("name: x\ntopology: {nodes: {a: {kind: host}}}\n")
    (lab / "configs" / "a" / "sysctl.conf").symlink_to("/etc/passwd")
    with pytest.raises(InvalidLab, match="symbolic link out of the lab"):
        load_lab(lab)
