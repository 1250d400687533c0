"""The exam as JSON: labels beside every array, null with a reason where no number exists."""

from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from meristem_exam._scale import Fit

if TYPE_CHECKING:
    from meristem_exam._exam import Exam, RaterStudy

SCHEMA = "meristem-exam/1"
NULLS = {
    "persons": "a system with one score throughout has no finite measure",
    "calibration.difficulty": "an item with one score throughout has no finite measure",
    "calibration.discrimination": "an item without variance has no correlation",
    "fit": "a row with an extreme raw score holds no information about fit",
    "alignment.system_r2": "a system whose scores are all equal has no variance to explain",
    "dif": "an anchor, or an item that lacks a category in a group, is not tested",
}


def exam_json(exam: "Exam") -> dict[str, Any]:
    """Return the whole exam as plain values."""
    s, e = exam.scale, exam.evidence
    seen = ~np.isnan(e.matrix.values)
    return {
        "schema": SCHEMA,
        "source": {
            "files": list(e.source),
            "persons": len(s.systems),
            "items": len(s.items),
            "scores": int(seen.sum()),
            "missing": int((~seen).sum()),
            "set_aside": list(s.set_aside),
        },
        "calibration": {
            "model": s.choice.model,
            "method": s.choice.method,
            "reason": s.choice.reason,
            "items": list(s.items),
            "difficulty": numbers(s.difficulty),
            "difficulty_se": numbers(s.difficulty_se),
            "rate": numbers(s.item_rate),
            "discrimination": numbers(s.discrimination),
            "loglik": s.loglik,
            "n_parameters": s.n_parameters,
            "dispersion": s.dispersion,
        },
        "persons": {
            "labels": list(s.systems),
            "ability": numbers(s.ability),
            "ability_se": numbers(s.ability_se),
            "low": numbers(s.low),
            "high": numbers(s.high),
            "best_rank": s.rank[:, 0].tolist(),
            "worst_rank": s.rank[:, 1].tolist(),
            "rate": numbers(s.rate),
            "reliability": _number(s.reliability),
        },
        "item_fit": {"labels": list(s.items), **_fit(s.item_fit)},
        "person_fit": {"labels": list(s.systems), **_fit(s.system_fit)},
        "tests": _tests(exam),
        "alignment": _alignment(exam),
        "overdispersion": None if exam.overdispersion is None else asdict(exam.overdispersion),
        "length": {
            "all": _length(exam.length),
            "answered": _length(exam.length_answered),
        }
        if exam.length
        else None,
        "dif": _dif(exam),
        "agreement": {"graders": _agreement(exam.graders), "human": _agreement(exam.human)}
        if exam.graders or exam.human
        else None,
        "facets": {"graders": _severity(exam.graders), "human": _severity(exam.human)}
        if exam.graders or exam.human
        else None,
        "findings": [asdict(each) for each in exam.findings],
        "warnings": list(exam.warnings),
        "nulls": NULLS,
        "seed": exam.seed,
        "versions": {name: version(name) for name in VERSIONS},
    }


VERSIONS = ("meristem-exam", "meristem-rasch", "meristem-core", "numpy", "scipy")


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def numbers(x: np.ndarray) -> list[float | None]:
    """Return an array as JSON takes it: null where a number is not finite."""
    return [_number(value) for value in x.tolist()]


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "infit": numbers(fit.infit),
        "outfit": numbers(fit.outfit),
        "p_adjusted": numbers(fit.p),
    }


def _tests(exam: "Exam") -> dict[str, Any]:
    h, d = exam.halves, exam.dependence
    return {
        "halves": None
        if h is None
        else {
            "name": "Andersen",
            "compared": h.what,
            "split": h.by,
            "statistic": h.test.statistic,
            "df": h.test.df,
            "p": h.test.p,
            "dropped": list(h.test.dropped),
            "rmsd_logits": h.rmsd,
            "correlation": h.correlation,
        },
        "local_dependence": None
        if d is None
        else {
            "mean_q3": d.mean,
            "pairs": [{"first": a, "second": b, "q3_above_mean": q} for a, b, q in d.pairs],
        },
    }


def _alignment(exam: "Exam") -> dict[str, Any] | None:
    a = exam.alignment
    if a is None:
        return None
    return {
        "rungs": [asdict(rung) for rung in a.rungs],
        "systems": list(a.systems),
        "system_r2": {
            rung.name: numbers(row) for rung, row in zip(a.rungs, a.system_r2, strict=True)
        },
        "correlations": [asdict(each) for each in a.correlations],
        "undefined": [list(pair) for pair in a.undefined],
        "share_excluding_zero": _number(a.share_excluding_zero),
        "items": a.items,
        "unlabelled": a.unlabelled,
    }


def _length(study: Any) -> dict[str, Any] | None:
    if study is None:
        return None
    return {
        "items": asdict(study.items),
        "partial": None if study.partial is None else asdict(study.partial),
        "systems": list(study.systems),
        "own": [asdict(each) for each in study.own],
        "others": [asdict(each) for each in study.others],
        "rungs": [asdict(rung) for rung in study.alignment.rungs],
        "cells": study.cells,
        "dropped": study.dropped,
    }


def _dif(exam: "Exam") -> dict[str, Any] | None:
    d = exam.dif
    if d is None:
        return None
    return {
        "method": d.method,
        "reference": d.reference,
        "focal": d.focal,
        "anchors": list(d.anchors),
        "labels": list(d.items),
        "effect_logits": numbers(d.effect),
        "se": numbers(d.se),
        "p": numbers(d.p),
        "p_holm": numbers(d.p_holm),
        "class": list(d.classes),
    }


def _agreement(study: "RaterStudy | None") -> dict[str, Any] | None:
    return None if study is None else asdict(study.agreement)


def _severity(study: "RaterStudy | None") -> dict[str, Any] | None:
    if study is None:
        return None
    return {
        "labels": list(study.raters),
        "severity": numbers(study.severity),
        "severity_se": numbers(study.severity_se),
        "infit": None if study.infit is None else numbers(study.infit),
        "fair_mean": None if study.fair is None else numbers(study.fair),
        "separation": study.separation,
    }
