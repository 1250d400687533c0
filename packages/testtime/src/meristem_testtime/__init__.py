"""Sampling, voting and search at test time, and their honest measurement."""

from meristem_testtime._at_k import AtK, at_k
from meristem_testtime._confidence import (
    WindowConfidence,
    early_stop_threshold,
    self_certainty,
    token_confidence,
    window_confidence,
    window_means,
)
from meristem_testtime._counting import (
    bon_at_k,
    g_pass_at_k,
    mg_pass_at_k,
    pass_at_k,
    pass_hat_k,
)
from meristem_testtime._estimates import CoverageLaw, MeanInterval, fit_coverage, interval
from meristem_testtime._lengths import (
    LengthByOutcome,
    LengthProfile,
    length_by_outcome,
    length_profile,
)
from meristem_testtime._majority import maj_at_k
from meristem_testtime._revisions import (
    BudgetComparison,
    Chains,
    RevisionReport,
    equal_budget,
    revisions,
    stationary,
)
from meristem_testtime._rules import (
    Ballots,
    Rule,
    best_of,
    borda,
    keep_top,
    length_power,
    longest_majority,
    majority,
    short_m,
    shortest_majority,
    sigmoid,
    weighted,
)
from meristem_testtime._traces import Traces, count_markers, read_traces
from meristem_testtime._vote import SmvExplanation, Vote, explain_smv, vote

__all__ = [
    "AtK",
    "Ballots",
    "BudgetComparison",
    "Chains",
    "CoverageLaw",
    "LengthByOutcome",
    "LengthProfile",
    "MeanInterval",
    "RevisionReport",
    "Rule",
    "SmvExplanation",
    "Traces",
    "Vote",
    "WindowConfidence",
    "at_k",
    "best_of",
    "bon_at_k",
    "borda",
    "count_markers",
    "early_stop_threshold",
    "equal_budget",
    "explain_smv",
    "fit_coverage",
    "g_pass_at_k",
    "interval",
    "keep_top",
    "length_by_outcome",
    "length_power",
    "length_profile",
    "longest_majority",
    "maj_at_k",
    "majority",
    "mg_pass_at_k",
    "pass_at_k",
    "pass_hat_k",
    "read_traces",
    "revisions",
    "self_certainty",
    "short_m",
    "shortest_majority",
    "sigmoid",
    "stationary",
    "token_confidence",
    "vote",
    "weighted",
    "window_confidence",
    "window_means",
]
