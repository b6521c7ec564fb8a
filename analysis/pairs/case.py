"""One run's tables, read once, and every question that the judge asks of them.

May not know how the answers make a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.disposition import AS_EXPECTED, Changed, Dispositions, Endings, compared, endings, expected_ratios
from analysis.kpi import Tolerance, own_bounds
from analysis.outcome import changed_findings, transition_findings, unsteady_findings
from analysis.pairs.cube import Face, faces
from analysis.pairs.design import FLOOR, Arm, Layout, alphas, smallest_p
from analysis.pairs.effects import Answer, Effect, effects
from analysis.pairs.findings import (
    flow_findings,
    group_findings,
    no_data_findings,
    one_sided_findings,
    path_findings,
    sentence,
    suspect_findings,
)
from analysis.pairs.hierarchy import Grouping, Level, flow_levels, group_levels
from analysis.pairs.margins import Scale, scale_of
from analysis.pairs.signflip import flips
from analysis.pairs.suspects import Odd, Suspect, odd_flows, suspects
from analysis.pairs.validity import Bounds
from analysis.roster import Roster
from analysis.verdict import Finding, Severity
from analysis.window import Role, windows_of
from analysis.words import plural

CERTAIN_WINDOWS = 2
"""From so many windows a side on, a flow that ends otherwise in all of them counts, whatever else was measured."""
UNMEASURED_RATIO_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Rules:
    """How strict the judge is; fixed before the run.

    `alpha` is the chance that a run fails though nothing is worse than its margin; `control_alpha` is A' to A's.
    `flow_tolerances` replaces, by KPI name, what a single flow may move by; `triage` asks for the list of suspects.
    """

    alpha: float = 0.05
    control_alpha: float = 0.01
    floor: int = FLOOR
    bounds: Bounds = field(default_factory=Bounds)
    flow_tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    triage: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """One judgement's tables, read once."""

    kpis: pd.DataFrame
    roster: Roster
    flow_ids: tuple[str, ...]
    tolerances: Mapping[str, Tolerance]
    layout: Layout
    rules: Rules
    seed: int
    ends: Endings
    during: tuple[int, ...]
    kinds: Dispositions
    certain: Mapping[str, Changed]
    faces: tuple[Face, ...]
    controls: tuple[Face, ...]

    @classmethod
    def of(
        cls,
        kpis: pd.DataFrame,
        flows: pd.DataFrame,
        tolerances: Mapping[str, Tolerance],
        layout: Layout,
        rules: Rules,
        seed: int,
    ) -> Case:
        """Read the tables: who is who, how every flow ended in every window, and every KPI in the compared arms."""
        roster = Roster.of(flows)
        kpis = kpis[kpis["flow_id"].isin(list(roster.class_of))]
        during = windows_of(kpis, Role.TRANSITION)
        early = (*layout.all_of(Arm.AS_IS), *layout.all_of(Arm.CONTROL))
        late = layout.all_of(Arm.CHANGED)
        ends = endings(kpis, roster.class_of, (*early, *late, *during))
        kinds = compared(ends, early, late)
        enough = min(len(early), len(late)) >= CERTAIN_WINDOWS
        return cls(
            kpis=kpis,
            roster=roster,
            flow_ids=tuple(str(flow) for flow in flows["flow_id"]),
            tolerances=tolerances,
            layout=layout,
            rules=rules,
            seed=seed,
            ends=ends,
            during=during,
            kinds=kinds,
            certain={one.flow_id: one for one in kinds.changed} if enough else {},
            faces=faces(kpis, flows, layout, (Arm.AS_IS, Arm.CHANGED), layout.pairs),
            controls=faces(kpis, flows, layout, (Arm.AS_IS, Arm.CONTROL), layout.controls),
        )

    def effects(self) -> tuple[tuple[Effect, ...], tuple[Effect, ...]]:
        """Of classes and the network, and of single flows."""
        pairs = len(self.layout.pairs)
        signs = flips(pairs, self.seed)
        flow_alpha, group_alpha = alphas(pairs, self.rules.alpha)
        grouping = Grouping.of(self.roster, self.flow_ids, frozenset(self.certain))
        groups = group_levels(self.faces, grouping, self.tolerances, self.rules.floor)
        single = self.flow_levels(self.faces, grouping)
        if flow_alpha + group_alpha <= self.rules.alpha:
            return effects(groups, signs, group_alpha), effects(single, signs, flow_alpha)
        joint = effects((*groups, *single), signs, self.rules.alpha)
        cut = sum(len(level.subjects) for level in groups)
        return joint[:cut], joint[cut:]

    def flow_levels(self, between: Sequence[Face], grouping: Grouping) -> tuple[Level, ...]:
        """Single flows, held to the rules' own tolerances where they have some, else to the KPI's for a flow."""
        levels: list[Level] = []
        for face in between:
            kpi = face.kpi
            if kpi.flow is None:
                continue
            usual = kpi.flow.widened(self.tolerances.get(kpi.name, kpi.tolerance))
            bounds = own_bounds(self.tolerances, kpi.name)
            rest = grouping if not bounds else grouping.only(~grouping.rows_of(bounds))
            parts = [(rest, self.rules.flow_tolerances.get(kpi.name) or usual)]
            parts += [(grouping.only(grouping.rows_of((name,))), kpi.flow.widened(b)) for name, b in bounds.items()]
            for part, allowed in parts:
                levels += flow_levels([face], part, {kpi.name: allowed}, self.rules.floor)
        return tuple(levels)

    def control(self) -> tuple[str, ...]:
        """Why A' is not like A, by the same test in both directions; nothing when it is, or when it was not played."""
        pairs = len(self.layout.controls)
        if pairs < self.rules.floor:
            return ()
        asked = self.layout.of(Arm.AS_IS, self.layout.controls), self.layout.of(Arm.CONTROL, self.layout.controls)
        changed = compared(self.ends, *asked).changed
        if changed:
            return (f"A' is not like A: {plural(len(changed), 'flow')} ended otherwise without any change",)
        alpha = max(self.rules.control_alpha, smallest_p(pairs))
        signs = flips(pairs, self.seed)
        grouping = Grouping.of(self.roster, self.flow_ids, frozenset())
        levels = (
            *group_levels(self.controls, grouping, self.tolerances, self.rules.floor),
            *self.flow_levels(self.controls, grouping),
        )
        for asked_of in (levels, tuple(level.turned() for level in levels)):
            worse = [one for one in effects(asked_of, signs, alpha) if one.answer is Answer.INFERIOR]
            if worse:
                return (f"A' is not like A though nothing was changed: {sentence(worse[0])}",)
        return ()

    def triage(self) -> tuple[tuple[Suspect, ...], tuple[Odd, ...]]:
        """Suspects by q-value, and flows that moved strangely; neither decides anything."""
        return (
            suspects(self.faces, self.flow_ids, self.rules.floor),
            odd_flows(self.faces, self.controls, self.flow_ids, self.seed),
        )

    def findings(self, groups: Sequence[Effect], single: Sequence[Effect], triage: Sequence[Suspect]) -> list[Finding]:
        """Everything that is to be told, in no order yet."""
        late = self.layout.all_of(Arm.CHANGED)
        early = self.layout.all_of(Arm.AS_IS)
        found = changed_findings(self.certain.values(), self.roster, len(late))
        found += no_data_findings(self.silent(), self.roster)
        found += one_sided_findings(self.one_sided(), self.roster)
        found += [*group_findings(groups, self.roster), *flow_findings(single, groups, self.roster)]
        found += transition_findings(self.ends, self.certain, self.roster, early, self.during)
        found += unsteady_findings(self.kinds.flaky, self.kinds.some, self.roster)
        found += path_findings(self.rerouted(), self.roster)
        named = frozenset(flow for one in found if one.verdict is Severity.FAIL for flow in one.flows)
        return [*found, *suspect_findings(triage, named, self.roster)]

    def as_expected(self, flows: Sequence[str]) -> tuple[float, float]:
        """The share of these flows that end as captured, without and with the change: medians over windows."""
        sides = (self.layout.all_of(Arm.AS_IS), self.layout.all_of(Arm.CHANGED))
        shares = [[one for one in expected_ratios(self.ends, flows, side) if not np.isnan(one)] for side in sides]
        before, after = (float(np.median(side)) if side else float("nan") for side in shares)
        return before, after

    def silent(self) -> tuple[str, ...]:
        """Critical flows of which nothing at all is known with the change, or not a KPI that they had without it."""
        late = self.layout.all_of(Arm.CHANGED)
        if not late:
            return ()
        critical = {flow for flow in self.flow_ids if self.roster.priority_of[flow] == "critical"}
        silent = {flow for flow in critical if not any(window in self.ends[flow] for window in late)}
        spoken = critical - silent - set(self.certain) - set(self.kinds.flaky) - set(self.kinds.some)
        for face in self.faces:
            if face.kpi.essential and face.kpi is not AS_EXPECTED:
                had = np.isfinite(face.before).sum(axis=1) >= self.rules.floor
                lost = had & ~np.isfinite(face.after).any(axis=1)
                silent |= {self.flow_ids[row] for row in np.flatnonzero(lost)} & spoken
        return tuple(sorted(silent))

    def one_sided(self) -> dict[tuple[str, bool], list[str]]:
        """Steady flows by (KPI, with the change) where only one arm has the KPI, though in more than one window.

        Of losses, errors and essential KPIs; errors that only the changed network has a number for are no pass.
        """
        unsteady = {*self.certain, *self.kinds.flaky, *self.kinds.some, *self.kinds.unmeasured, *self.silent()}
        found: dict[tuple[str, bool], list[str]] = {}
        for face in self.faces:
            if face.kpi is AS_EXPECTED or not (face.kpi.essential or scale_of(face.kpi) is not Scale.LOG):
                continue
            before, after = (np.isfinite(values).sum(axis=1) for values in (face.before, face.after))
            for changed, lone in ((True, (before == 0) & (after > 1)), (False, (after == 0) & (before > 1))):
                flows = [self.flow_ids[row] for row in np.flatnonzero(lone) if self.flow_ids[row] not in unsteady]
                if flows:
                    found[face.kpi.name, changed] = flows
        return found

    def rerouted(self) -> dict[tuple[str, str], list[str]]:
        """Flows by (path as is, path with the change), where each was the same in all windows of its side."""
        moved: dict[tuple[str, str], list[str]] = {}
        if "path" not in self.kpis.columns:
            return moved
        sides = []
        for arms in ((Arm.AS_IS, Arm.CONTROL), (Arm.CHANGED,)):
            windows = [window for arm in arms for window in self.layout.all_of(arm)]
            part = self.kpis[self.kpis["window"].isin(windows)].groupby("flow_id")["path"]
            sides.append(part.first()[part.nunique(dropna=False) == 1])
        both = pd.concat(sides, axis=1, join="inner", keys=["before", "after"]).fillna("")
        for flow, before, after in both[both["before"] != both["after"]].itertuples():
            moved.setdefault((str(before), str(after)), []).append(str(flow))
        return moved

    def wavering(self) -> str:
        """Critical flows that end worse in several windows with the change and in none without; "" when none does."""
        late = self.layout.all_of(Arm.CHANGED)
        worse = {
            flow: sum(not self.ends[flow][window].as_expected for window in late if window in self.ends[flow])
            for flow in self.kinds.some
            if self.roster.priority_of[flow] == "critical"
        }
        often = {flow: count for flow, count in worse.items() if count >= CERTAIN_WINDOWS}
        if not often:
            return ""
        flow = max(sorted(often), key=lambda one: often[one])
        who = self.roster.title_of.get(flow, flow)
        return (
            f"critical flow {who} ended worse in {often[flow]} of {len(late)} windows with the change, in none without"
        )

    def unmeasured(self) -> str:
        """Whether too many flows lack a result in some window; "" when not."""
        lost = [flow for flow in self.kinds.unmeasured if self.roster.priority_of[flow] == "critical"]
        if lost:
            return f"{plural(len(lost), 'critical flow')} lack a result in some window"
        lone = self.one_sided()
        if lone:
            return one_sided_findings(lone, self.roster)[0].effect
        if len(self.kinds.unmeasured) > UNMEASURED_RATIO_LIMIT * len(self.flow_ids):
            missing = f"{len(self.kinds.unmeasured)} of {len(self.flow_ids)} flows"
            return f"too little was measured: {missing} lack a result in some window"
        return ""
