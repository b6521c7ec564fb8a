"""Numbers to words: tables of repeated windows in, findings and a verdict out. Pure: no I/O, no clock."""
