"""Names of other formats turned into names a lab takes: umlauts spelt out, blanks made dashes, none used twice.

Pure. This file may not know what is being named.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

LONGEST_NAME = 63
_SPELT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ø": "oe", "Ø": "Oe"}
    | {"æ": "ae", "Æ": "Ae", "å": "aa", "Å": "Aa", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"}
)


def valid_name(text: str, fallback: str, longest: int = LONGEST_NAME) -> str:
    """The nearest name of ASCII letters, digits, `_`, `.` and `-`; `fallback` when nothing of the text is left."""
    ascii_text = unicodedata.normalize("NFKD", text[:1000].translate(_SPELT)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.]+", "-", ascii_text).strip("-._")[:longest].rstrip("-._") or fallback


def free_name(text: str, taken: Container[str], fallback: str, longest: int = LONGEST_NAME) -> str:
    """The nearest valid name that is not taken: the second of a name ends in -2, and so on."""
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{longest - 1}}}", text):
        text = valid_name(text, fallback, longest)
    name, count = text, 1
    while name in taken:
        count += 1
        name = f"{text[: longest - len(str(count)) - 1]}-{count}"
    return name
