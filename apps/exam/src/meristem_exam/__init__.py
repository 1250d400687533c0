"""Evaluation results as measurement: one scale for systems and items, and honest diagnostics."""

from meristem_exam._exam import Exam, sit_exam
from meristem_exam._figures import ruler
from meristem_exam._report import render_exam
from meristem_exam._sources import Evidence

__all__ = ["Evidence", "Exam", "render_exam", "ruler", "sit_exam"]
