"""The judge measured: windows whose truth is known, and what other judges make of the same data."""
