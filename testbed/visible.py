"""Text that others wrote, made harmless to look at.

Names in a capture or a config may hold escape sequences that drive a terminal, or Unicode controls that turn the order
of what is read around. May not know where the text is shown.
"""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str) -> str:
    """The text with control, format and surrogate characters spelled out as escapes; new lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in _KEPT or unicodedata.category(character) not in _HIDDEN else _spelled(character)
        for character in text
    )


def one_line(text: str) -> str:
    """The visible text with all white space runs made one blank, for places that have a single line."""
    return " ".join(visible(text).split())


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
