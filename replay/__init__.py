"""Traffic: captures in, flow table and messages out, replay of them, per-flow KPIs. Knows no topology and no shadow."""
