"""What the documents say exists: commands, options, files, packaged changes; and every command is documented."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from testbed.cli import commands

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)


def leaves(group: click.Group, name: str = "testbed") -> dict[str, click.Command]:
    found = {}
    context = click.Context(group)
    for word in group.list_commands(context):
        child = group.get_command(context, word)
        assert child is not None, word
        assert child.name == word
        path = f"{name} {word}"
        found.update(leaves(child, path) if isinstance(child, click.Group) else {path: child})
    return found


def test_every_command_has_help_with_an_example_and_is_in_the_documents():
    for path, command in leaves(commands).items():
        assert command.help, path
        assert path in (command.epilog or ""), f"{path}: no example"
        assert path in TEXT, f"{path} is not documented"


def test_every_documented_command_exists():
    words = {match[1] for match in re.finditer(r"\btestbed ([a-z]+)", TEXT)}
    assert words
    known = set(commands.list_commands(click.Context(commands)))
    assert words <= known, words - known


def test_every_documented_lab_word_exists():
    usage = (ROOT / "lab").read_text()
    for word in {match[1] for match in re.finditer(r"\./lab ([a-z]+)", TEXT)}:
        assert re.search(rf"^  {word}\b", usage, re.M), word


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_path_leads_somewhere(document):
    text = document.read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    paths = re.findall(r"\b((?:topologies|testbed|replay|analysis|docs|tests)/[\w./-]+\w)", text)
    for target in links:
        assert (document.parent / target).exists(), target
    for target in paths:
        assert (ROOT / target).exists(), target


def test_blamed_lines_in_the_documents_are_really_there():
    rule = "-A FORWARD -p tcp -m tcp --dport 443 -j DROP"
    assert rule in (ROOT / "topologies/shop/changes/block-https/change.patch").read_text()
    assert rule in (ROOT / "README.md").read_text()
