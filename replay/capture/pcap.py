"""The pcap format: octets to records, as far as they are whole. Knows nothing of files, packing or packet headers.

A record is damaged that claims more than the snaplen and 256 KiB, that has a second or more as its fraction or more
octets than passed on the wire (unless the file's first record is so too), or that leaps by more than a day with no
possible record after it. Reading goes on where two headers in a row are plausible: lengths possible, a fraction below
a second, within a day of the last good record. Format: draft-ietf-opsawg-pcap.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from replay.capture.chain import Links, followed, overlapping, overlapping_words
from replay.capture.records import Records
from replay.capture.recovery import RecordFormat, Stop
from replay.columns import Bool, Int64, UInt8, UInt32

HEADER_OCTETS = 24
_RECORD_HEADER_OCTETS, _PATCHED_RECORD_HEADER_OCTETS = 16, 24
# magic as read in big-endian order -> byte order, nanoseconds a fraction, octets of a record header
MAGICS: dict[int, tuple[str, int, int]] = {
    0xA1B2C3D4: (">", 1000, _RECORD_HEADER_OCTETS),
    0xD4C3B2A1: ("<", 1000, _RECORD_HEADER_OCTETS),
    0xA1B23C4D: (">", 1, _RECORD_HEADER_OCTETS),
    0x4D3CB2A1: ("<", 1, _RECORD_HEADER_OCTETS),
    0xA1B2CD34: (">", 1000, _PATCHED_RECORD_HEADER_OCTETS),
    0x34CDB2A1: ("<", 1000, _PATCHED_RECORD_HEADER_OCTETS),
}
_LEAST_LIMIT_OCTETS, _MOST_LIMIT_OCTETS = 1 << 18, 1 << 24
_DAY_S = 86_400


class Pcap(RecordFormat):
    """Reads one pcap file's octets, which come in pieces; made from its file header."""

    def __init__(self, header: bytes) -> None:
        self._order, self._fraction_ns, self._header_octets = MAGICS[int.from_bytes(header[:4], "big")]
        order: Literal["little", "big"] = "little" if self._order == "<" else "big"
        snaplen, link_type = (int.from_bytes(header[at : at + 4], order) for at in (16, 20))
        self._link_type = np.array(link_type & 0xFFFF, np.int64)
        self._fractions = 1_000_000_000 // self._fraction_ns
        self._limit = min(max(snaplen, _LEAST_LIMIT_OCTETS), _MOST_LIMIT_OCTETS)
        self._last_s: int | None = None
        self._final = False
        self._habits: tuple[bool, bool] | None = None

    def links(self, data: UInt8, begin: int, end: int, final: bool) -> Links:
        """A plausible record is within a day of the last good one, possible in itself, and so is the one after it."""
        self._final = final
        words = overlapping_words(data, self._order)
        near = self._last_s
        if near is None and not self.lost and begin < len(words):
            near = int(words[begin])
        earliest = np.uint32(max((near or 0) - _DAY_S, 1))
        span = np.uint32(2 * _DAY_S if near else 0xFFFFFFFE)
        fractions = self._fractions

        def looks(first: UInt32) -> Bool:
            possible: Bool = (first.astype(np.uint32) - earliest) <= span
            return possible

        def alone(at: Int64) -> tuple[Bool, Int64]:
            at = np.minimum(at, end)
            first, fraction, captured, wire = (words[at + 4 * place].astype(np.uint32) for place in range(4))
            possible = (fraction < fractions) & (captured <= self._limit) & (captured <= wire) & (wire > 0)
            return looks(first) & possible & (wire <= _MOST_LIMIT_OCTETS), at + self._header_octets + captured

        def plausible(at: Int64) -> Bool:
            right: Bool = words[np.minimum(at + 8, end)] <= self._limit
            at = at[right]
            possible, following = alone(at)
            another = following + self._header_octets <= end
            after, _ = alone(np.where(another, following, at))
            possible &= (following <= end) & np.where(another, after, (following == end) | (not final))
            right[right] = possible
            return right

        return Links(self._order, 8, self._header_octets, _RECORD_HEADER_OCTETS, looks, plausible)

    def run(
        self, data: UInt8, begin: int, until: int, end: int, links: Links, skipped: Counter[str]
    ) -> tuple[Records, int, Stop]:
        """Records as far as they are whole and right; a header of zeros alone is what a crash leaves, not a record."""
        at = followed(data, begin, until, links)
        at = at[: int(np.searchsorted(at, end - self._header_octets, side="right"))]
        headers = overlapping(data, 16)[at].view(f"{self._order}u4").reshape(-1, 4)
        seconds, fraction, captured, wire = (headers[:, place].astype(np.int64) for place in range(4))
        wrong = (captured > self._limit) | ((seconds | fraction | captured | wire) == 0)
        wrong |= self._against_habits(fraction >= self._fractions, (captured > wire) | (wire == 0))
        following = at + self._header_octets + captured
        cut = following > end
        self._judge_leaps(data, seconds, following, end, wrong, cut)
        bad = np.flatnonzero(wrong | cut)
        count = int(bad[0]) if len(bad) else len(at)
        rest = int(at[count]) if len(bad) else int(following[-1]) if len(at) else begin
        good = slice(0, count)
        if count:
            self._last_s = int(seconds[count - 1])
        records = Records(
            data,
            at[good] + self._header_octets,
            captured[good],
            wire[good],
            seconds[good] * 1_000_000_000 + fraction[good] * self._fraction_ns,
            np.broadcast_to(self._link_type, (count,)),
        )
        if len(bad) and wrong[count]:
            return records, rest, Stop.WRONG
        return records, rest, Stop.WALKED if rest >= until else Stop.CUT

    def _judge_leaps(self, data: UInt8, seconds: Int64, following: Int64, end: int, wrong: Bool, cut: Bool) -> None:
        """A record more than a day from the one before is believed when the one after it is possible in itself."""
        before = np.append(seconds[:1] if self._last_s is None else self._last_s, seconds[:-1])[: len(seconds)]
        leaps = np.flatnonzero((np.abs(seconds - before) > _DAY_S) & ~wrong & ~cut)
        if not len(leaps):
            return
        after = following[leaps]
        there = after + self._header_octets <= end
        if not self._final:
            cut[leaps[~there]] = True
        words = overlapping_words(data, self._order)
        fraction, captured, wire = (words[np.minimum(after, end) + at].astype(np.int64) for at in (4, 8, 12))
        unusual = (fraction >= self._fractions) | (captured > wire) | (captured > self._limit) | (wire == 0)
        wrong[leaps[there & unusual]] = True

    def _against_habits(self, odd_fraction: Bool, odd_wire: Bool) -> Bool:
        """What is wrong unless the writer does it from its first record on: some put nanoseconds into microseconds."""
        if self._habits is None and len(odd_fraction):
            self._habits = bool(odd_fraction[0]), bool(odd_wire[0])
        usual_fraction, usual_wire = self._habits or (False, False)
        wrong: Bool = (odd_fraction & (not usual_fraction)) | (odd_wire & (not usual_wire))
        return wrong
