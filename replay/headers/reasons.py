"""Why records are left out: one reason a record, the first that applied. Knows nothing of what the reasons mean."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from replay.columns import Bool, Int64


class Reasons:
    """Collects the first reason of every record that cannot be used."""

    def __init__(self, count: int) -> None:
        self._reason = np.zeros(count, np.int16)
        self._names = [""]

    def good(self) -> Bool:
        """The records that have no reason so far."""
        good: Bool = self._reason == 0
        return good

    def kept(self) -> Int64:
        """The rows that have no reason so far."""
        return np.flatnonzero(self._reason == 0)

    def fail(self, where: Bool, name: str) -> None:
        """Give the reason to the records of the mask that have none yet."""
        if where.any():
            self.fail_rows(np.flatnonzero(where), name)

    def fail_rows(self, rows: Int64, name: str) -> None:
        """Give the reason to the rows that have none yet."""
        if len(rows):
            fresh = rows[self._reason[rows] == 0]
            self._reason[fresh] = self._number(name)

    def fail_by_number(self, where: Bool, pattern: str, number: npt.NDArray[np.integer]) -> None:
        """Give every record of the mask a reason that carries its own number, such as an unsupported protocol's."""
        if where.any():
            for value in np.unique(number[where]):
                self.fail(where & (number == value), pattern.format(int(value)))

    def adopt(self, rows: Int64, others: Reasons) -> None:
        """Take over the reasons that were found for these rows alone."""
        for number, name in enumerate(others._names):
            if number:
                self.fail_rows(rows[others._reason == number], name)

    def counter(self) -> Counter[str]:
        """How many records have each reason."""
        counts = np.bincount(self._reason, minlength=len(self._names))
        return Counter({name: int(counts[i]) for i, name in enumerate(self._names) if i and counts[i]})

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)
