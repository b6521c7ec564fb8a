"""One flow sent again, before and after a change, with captures on every hop: its two journeys side by side."""
