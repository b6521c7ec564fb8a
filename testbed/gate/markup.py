"""Text that others wrote, inside Markdown: it says what it says and does nothing.

A class name or a rule may hold anything: HTML, links, images, mentions of people, a table's bars, a fence's end. May
not know what a verdict is.
"""

from __future__ import annotations

import re

from testbed.visible import one_line, visible

LONGEST_LINE = 600
_ACTIVE = re.compile(r"[\\`*_\[\]#|~$!^]")
_MENTION = re.compile(r"([@#!~%$&])(?=\w)|(:)(?=//)|(?<=\b[wW]{3})(?=\.)|^(?=/)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
JOINER = "\u2060"
"""A word joiner: nothing to see, and no longer the name of a person, an issue or an address on the web."""


def prose(text: str) -> str:
    """Text for a running line or a table's cell: one line, no markup, no mention, no link."""
    line = cut(one_line(text), LONGEST_LINE)
    parted = _MENTION.sub(lambda match: f"{match[0]}{JOINER}", line)
    plain = "".join(_ENTITIES.get(sign, sign) for sign in parted)
    return _ACTIVE.sub(lambda match: f"\\{match[0]}", plain)


def code(text: str) -> str:
    """Text as a code span that it cannot end, also inside a table's cell."""
    line = cut(one_line(text), LONGEST_LINE).replace("|", "\\|") or " "
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(text: str, language: str = "") -> str:
    """Text as a code block that it cannot end."""
    body = "\n".join(cut(line, LONGEST_LINE) for line in visible(text).replace("\r", "\\r").split("\n"))
    fence = "`" * max(3, _longest_run(body) + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def folded(summary: str, body: str) -> str:
    """A part that is shown when it is asked for; `summary` is escaped, `body` is Markdown."""
    title = "".join(_ENTITIES.get(sign, sign) for sign in one_line(summary))
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def cut(text: str, longest: int) -> str:
    """The text, or as much of it as fits, with the cut told."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
