"""Anomalies of any series, as they come: every score is made from what came before, and nothing else.

    reading → season → residual → detectors → tails → evidence → alarm rule → score

`watch.Watch` is the whole chain; each link stands in a file of its own and fulfils the one port in `port`.
"""
