"""The files that a pipeline asked for, made from one verdict and put in place.

One renderer a file beside this one; this file may not know formats.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.gate.github import append_summary, workflow_commands
from testbed.gate.gitlab import codequality, metrics
from testbed.gate.junit import junit
from testbed.gate.markdown import MOST_CHARACTERS, Around, markdown
from testbed.gate.places import Layout
from testbed.gate.sarif import sarif
from testbed.verdict_file import VerdictFile

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
SUMMARY_CHARACTERS = 250_000
"""A quarter of what GitHub takes in octets: no character has more than four."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where each format goes; `files` has format to path, `most_characters` holds for the Markdown."""

    files: Mapping[str, Path] = field(default_factory=dict, hash=False)
    github: bool = False
    most_characters: int = MOST_CHARACTERS
    summary: Path | None = None


Rendered = Callable[[VerdictFile, Layout, Around, int], str]
FORMATS: Mapping[str, Rendered] = {
    "junit": lambda verdict, _layout, _around, _most: junit(verdict),
    "sarif": lambda verdict, layout, _around, _most: sarif(verdict, layout),
    "markdown": markdown,
    "codequality": lambda verdict, layout, _around, _most: codequality(verdict, layout),
    "metrics": lambda verdict, _layout, _around, _most: metrics(verdict),
}


def step_summary() -> Path | None:
    """The file that a step of a GitHub workflow appends its summary to, where there is one."""
    named = os.environ.get(STEP_SUMMARY, "")
    return Path(named) if named else None


def write_outputs(verdict: VerdictFile, layout: Layout, around: Around, outputs: Outputs) -> tuple[str, ...]:
    """Write every file asked for; returns the workflow commands to print, none when they were not asked for."""
    for name, path in outputs.files.items():
        text = FORMATS[name](verdict, layout, around, outputs.most_characters)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "backslashreplace"))
    if outputs.summary is not None:
        append_summary(markdown(verdict, layout, around, SUMMARY_CHARACTERS), outputs.summary)
    return workflow_commands(verdict, layout) if outputs.github else ()
