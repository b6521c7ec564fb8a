"""`testbed lab import`: a native lab, its notes, and refusals."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.cli import commands
from testbed.errors import InvalidInput
from topologies.load import load_lab

EXAMPLES = Path(__file__).parents[1] / "topologies" / "examples"


def run(*words: str):
    return CliRunner().invoke(commands, ["lab", "import", *words], standalone_mode=False)


def test_it_writes_a_lab_and_tells_what_it_made_and_every_note(tmp_path):
    result = run(str(EXAMPLES / "campus" / "campus.clab.yml"), "-o", str(tmp_path / "lab"))
    assert result.exception is None
    assert result.return_value == 0
    assert "9 nodes" in result.output
    assert "mgmt: a shadow has no management network" in result.output
    assert load_lab(tmp_path / "lab").name == "campus"


def test_it_leaves_a_folder_with_something_in_it_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    result = run("mininet:minimal", "-o", str(tmp_path))
    assert isinstance(result.exception, InvalidInput)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("source", ["nothing", "topohub:nothing", "topologies/shop", "x.clab.yml"])
def test_what_is_no_source_is_refused(tmp_path, source):
    assert isinstance(run(source, "-o", str(tmp_path / "lab")).exception, InvalidInput)
    assert not (tmp_path / "lab").exists()
