"""Judging windows that were played in pairs: as is, changed, as is again."""
