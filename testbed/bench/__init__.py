"""Measurements of the testbed itself, each beside a reference measured in the same run."""
