"""Capture files to record tables: containers, packing, order in time, folders that grow. Knows no packet header."""
