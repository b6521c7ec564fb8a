"""Texts of a record to numbers, times and addresses, each refused when it cannot be right. Knows no format.

Everything here raises DamagedRecord, whose word is the reason under which the record is counted.
"""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from functools import lru_cache

LARGEST_COUNT = 1 << 48
LATEST_S = 1 << 33
LONGEST_TEXT = 200
_NS = 1_000_000_000


class DamagedRecord(ValueError):
    """Raised for a record that cannot be used; says why in one word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def whole(written: object, largest: int = LARGEST_COUNT) -> int:
    """A whole number from 0 to `largest`, written as a number or as text."""
    if isinstance(written, bool) or not isinstance(written, (int, str)):
        raise DamagedRecord("damaged_number")
    if isinstance(written, str) and not (written.isascii() and written.isdigit() and len(written) <= 20):
        raise DamagedRecord("damaged_number")
    number = int(written)
    if not 0 <= number <= largest:
        raise DamagedRecord("impossible_number")
    return number


def port(written: object) -> int:
    """A port number."""
    return whole(written, 0xFFFF)


def seconds_ns(written: object) -> int:
    """Decimal seconds as ns, to the last digit (a float would round a time of today to some 200 ns)."""
    text = str(written) if isinstance(written, int) and not isinstance(written, bool) else written
    if not isinstance(text, str):
        raise DamagedRecord("damaged_time")
    seconds, _, fraction = text.partition(".")
    if not (seconds.isascii() and seconds.isdigit() and (not fraction or (fraction.isascii() and fraction.isdigit()))):
        raise DamagedRecord("damaged_time")
    if len(seconds) > 11 or int(seconds) >= LATEST_S:
        raise DamagedRecord("impossible_time")
    return int(seconds) * _NS + int(fraction[:9].ljust(9, "0"))


def stamp_ns(written: object) -> int:
    """A time stamp of RFC 3339 as ns since 1970, its nanoseconds kept; one without a zone is taken as UTC."""
    if not isinstance(written, str) or len(written) > 40 or not written.isascii():
        raise DamagedRecord("damaged_time")
    whole_seconds, point, rest = written.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    fraction, zone = rest[:digits], rest[digits:]
    try:
        at = datetime.fromisoformat((whole_seconds + zone if point else whole_seconds).replace("Z", "+00:00"))
    except ValueError as error:
        raise DamagedRecord("damaged_time") from error
    at = at.replace(tzinfo=at.tzinfo or UTC)
    seconds = (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    if not 0 <= seconds < LATEST_S:
        raise DamagedRecord("impossible_time")
    return int(seconds) * _NS + int(fraction[:9].ljust(9, "0"))


def address(written: object) -> str:
    """An IPv4 or IPv6 address in the one spelling that the flow table has."""
    if not isinstance(written, str) or len(written) > 45:
        raise DamagedRecord("damaged_address")
    return _address(written)


@lru_cache(maxsize=1 << 16)
def _address(written: str) -> str:
    family = socket.AF_INET6 if ":" in written else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, written))
    except (OSError, ValueError) as error:
        raise DamagedRecord("damaged_address") from error


def text(written: object) -> str:
    """A short printable text, empty for anything else: it is shown and stored, never acted upon."""
    if not isinstance(written, str):
        return ""
    if len(written) <= LONGEST_TEXT and written.isprintable():
        return written
    return "".join(c if c.isprintable() else "?" for c in written[:LONGEST_TEXT])


def mapping(written: object) -> dict[str, object]:
    """A JSON object; anything else is a record that lacks a part."""
    if not isinstance(written, dict):
        raise DamagedRecord("missing_field")
    return written


def json_object(line: str) -> dict[str, object]:
    """The JSON object of a line, its decimal numbers left as text so that no digit of a time is lost."""
    try:
        document = json.loads(line, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise DamagedRecord("damaged_line") from error
    if not isinstance(document, dict):
        raise DamagedRecord("damaged_line")
    return document
