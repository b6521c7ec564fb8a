"""An experiment in pairs of windows: played in random order on one shadow, begun alike, judged by `analysis.pairs`."""
