"""Flow records of other people's exporters as the meter's tables: one file a format, one stitch, one table."""

from replay.records.kinds import EXPECTED, KINDS, is_capture, kind_named, kind_of, read_flow_records
from replay.records.table import Records

__all__ = ["EXPECTED", "KINDS", "Records", "is_capture", "kind_named", "kind_of", "read_flow_records"]
