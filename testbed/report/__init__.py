"""`report.html`: one self-contained page made from a run directory and nothing else.

May not know how a run is made or judged. Nothing that stems from a capture, a lab or a change is ever HTML: the
template escapes everything, and the page's own policy lets no script run but the one it came with.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from analysis.words import in_short
from testbed.report.page import read_page
from testbed.store import RunDirectory
from testbed.verdict_file import VerdictFile
from testbed.visible import visible

NAME = "report.html"


def write_report(run: Path) -> Path:
    """Render `report.html` into a run directory and return its path; FileNotFoundError without a `verdict.json`."""
    return RunDirectory(run).write_text(NAME, render(run))


def render(run: Path, judged_again: VerdictFile | None = None) -> str:
    """The page as text, of the run's own verdict or of one that it was given later."""
    script = _source("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    template = _environment().get_template("report.html.j2")
    return template.render(
        page=read_page(run, judged_again),
        style=Markup(_source("report.css")),
        script=Markup(script),
        script_digest=digest,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["in_short"] = in_short
    return environment


def _shown(value: object) -> object:
    """Every value that is printed passes here, so control and bidirectional characters cannot disguise a line."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


@cache
def _source(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text("utf-8")
