"""A realistic run directory, judged by the real judge: `sample_run.py FOLDER [fail|pass|unsure]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.judge import judge, judge_restored
from analysis.verdict import Blame
from analysis.window import summary
from testbed.store import RunDirectory
from testbed.verdict_file import VerdictFile

MS = 1_000_000
ROLES = ("warmup", "baseline", "baseline", "baseline", "transition", "treatment", "treatment", "treatment", "restored")
CLASSES = (
    # name, flows, priority, protocol, port, application, response ms, label, IPv6 share
    ("checkout", 118, "critical", 6, 443, "tls", 12.0, "checkout.shop.example", 0.3),
    ("catalogue", 96, "high", 6, 80, "http", 8.0, "www.shop.example", 0.3),
    ("dns", 104, "normal", 17, 53, "dns", 1.4, "www.shop.example", 0.2),
    ("database", 14, "high", 6, 5432, "postgres", 4.0, "", 0.0),
    ("download", 4, "low", 6, 80, "http", 60.0, "files.shop.example", 0.0),
    ("other", 16, "normal", 6, 22, "ssh", 5.0, "", 0.0),
)
RULE = "-A FORWARD -i ens3 -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -j DROP"
DIFF = f"""\
--- a/configs/fw1/iptables.rules
+++ b/configs/fw1/iptables.rules
@@ -14,9 +14,10 @@
 -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
 -A FORWARD -m conntrack --ctstate INVALID -j DROP
 -A FORWARD -p icmp -j ACCEPT
 -A FORWARD -i ens3 -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT
+{RULE}
 -A FORWARD -i ens3 -p tcp -m tcp --dport 443 -m conntrack --ctstate NEW -j ACCEPT
 -A FORWARD -i ens3 -p udp -m udp --dport 53 -j ACCEPT
 -A FORWARD -i ens3 -p tcp -m tcp --dport 53 -j ACCEPT
 -A FORWARD -j REJECT --reject-with icmp-port-unreachable
 COMMIT
"""


def write(
    runs: Path, kind: str = "fail", run_id: str = "20261123-131500-block-https", text: Callable[[str], str] = str
) -> RunDirectory:
    """Make the run; `text` is applied to every string that stems from a capture, a lab or a change."""
    flows, kpis = _tables(np.random.default_rng(7), kind, text)
    instruments = [
        {"window": window, "role": role, "valid": kind != "unsure" or window < 6, "seconds": 4.2 + window / 10}
        | {"started": f"2026-11-23T13:15:{window * 5 + 10:02}Z", "reason": text("lateness p99 212 ms, limit 50 ms")}
        for window, role in enumerate(ROLES)
    ]
    judgement = judge(kpis, flows, {}, instruments)
    blame = Blame(
        node=text("fw1"),
        object=text("filter FORWARD rule 5"),
        file=text("configs/fw1/iptables.rules"),
        line=18,
        text=text(RULE),
        evidence=(
            text("rule counter: absent in every baseline window; 354 packets in each treatment window"),
            text("added by this change at configs/fw1/iptables.rules:18"),
            text("kernel trace of flow checkout-000: filter:FORWARD:rule:5 → DROP"),
        ),
    )
    findings = [f.with_blame(blame) if f.subject == text("checkout") else f for f in judgement.findings]
    restored, detail = judge_restored(kpis, flows, {}, instruments)
    line = {
        "node": text("fw1"),
        "file": text("configs/fw1/iptables.rules"),
        "line": 18,
        "sign": "+",
        "text": text(RULE),
    }
    verdict = VerdictFile.model_validate(
        {
            "verdict": judgement.verdict.name,
            "reason": judgement.reason,
            "expected": "FAIL" if kind == "fail" else None,
            "lab": text("shop"),
            "run_id": run_id,
            "created": text("2026-11-23T13:15:00Z"),
            "change": {
                "name": text("none" if kind == "pass" else "block-https"),
                "source": text("topologies/shop/changes/block-https"),
                "lines": [] if kind == "pass" else [line],
            },
            "findings": [finding.to_json() for finding in findings],
            "rollback": {"done": True, "restored": restored, "detail": detail},
            "instrument": {
                "valid": kind != "unsure",
                "reason": text("lateness p99 212 ms, limit 50 ms") if kind == "unsure" else "",
                "lateness_p50_us": 41.0,
                "lateness_p99_us": 212_000.0 if kind == "unsure" else 1890.0,
                "offered": 3168,
                "sent": 3168,
                "noise_percent": dict(judgement.noise_percent),
            },
            "windows": summary(kpis, instruments),
            "classes": [one.to_json() for one in judgement.classes],
            "timings": {"validate_s": 0.4, "build_s": 1.9, "converge_s": 21.3, "replay_s": 39.6, "judge_s": 0.2}
            | {"report_s": 0.3, "teardown_s": 0.1, "total_s": 63.8},
        }
    )
    run = RunDirectory.created(runs, run_id)
    inputs = {text("lab.yaml"): "sha256:9f2c…", text("traffic/shop.pcap"): "sha256:41aa…"}
    versions = {
        "testbed": "0.1.0",
        "python": "3.11.2",
        "frr": "8.4.4",
        "haproxy": "2.6.12",
        "iptables": "1.8.9 (nf_tables)",
    }
    run.write_json(
        "run.json", {"seed": 7, "inputs": inputs, "versions": versions, "kernel": {"release": text("6.18.5")}}
    )
    run.append_event("2026-11-23T13:15:00Z", "begin", {"lab": text("shop")})
    run.write_table("flows", flows)
    for window, part in kpis.groupby("window"):
        run.write_table("kpis", part, part=int(window))
    if kind != "pass":
        run.write_text("change.diff", text(DIFF) if text is not str else DIFF)
    run.write_json("verdict.json", verdict.document())
    return run


def _tables(random: np.random.Generator, kind: str, text: Callable[[str], str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = []
    for name, count, priority, protocol, port, application, ms, label, share in CLASSES:
        for number in range(count):
            six = number < count * share
            rows.append(
                {
                    "flow_id": text(f"{name}-{number:03}"),
                    "flow_class": text(name),
                    "priority": priority,
                    "protocol": protocol,
                    "source_address": f"2001:db8:100::{number + 16:x}" if six else f"198.51.100.{number + 10}",
                    "source_port": 33000 + int(random.integers(28000)),
                    "destination_address": "2001:db8:f::10" if six else "203.0.113.10",
                    "destination_port": port,
                    "application": application,
                    "label": text(label),
                    "outcome": "accepted",
                    "ms": ms * random.uniform(0.7, 1.8),
                }
            )
    flows = pd.DataFrame(rows)
    parts = []
    for window, role in enumerate(ROLES):
        response = flows["ms"] * random.lognormal(0, 0.05, len(flows)) * MS
        if kind == "fail" and role == "treatment":
            response = response.where(flows["flow_class"] != text("catalogue"), response * 3.4)
        part = pd.DataFrame({"run_id": "r", "window": window, "role": role, "flow_id": flows["flow_id"]}).assign(
            lateness_ns=random.integers(1000, 2_000_000, len(flows)),
            completed=True,
            error="none",
            as_expected=True,
            connect_ns=(response / 9).where(flows["protocol"] == 6),
            first_response_ns=response * 0.8,
            response_ns=response,
            one_way_delay_forward_ns=response / 21,
            one_way_delay_reverse_ns=response / 19,
            pdv_ns=response / 60,
            loss_ratio=0.0,
            retransmits=0.0,
            delivered_octets=20_000.0,
            goodput_bps=1.6e14 / response,
            duration_ns=response * 1.5,
            path=text("internet>fw1>r1>r2>lb1>web1"),
        )
        hit = flows["flow_class"] == text("checkout")
        if kind == "fail" and role in ("transition", "treatment"):
            blocked = hit if role == "treatment" else hit & (np.arange(len(flows)) % 3 > 0)
            part.loc[blocked, ["completed", "as_expected"]] = False
            part.loc[blocked, "error"] = "timeout"
            part.loc[blocked, ["connect_ns", "response_ns", "first_response_ns"]] = np.inf
            part.loc[blocked, ["goodput_bps", "pdv_ns"]] = np.nan
        parts.append(part)
    return flows.drop(columns="ms"), pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    from testbed.report import write_report

    made = write(Path(sys.argv[1]), *sys.argv[2:3])
    write_report(made.path)
