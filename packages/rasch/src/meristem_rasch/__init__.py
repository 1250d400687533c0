"""Rasch-family measurement: exact conditional likelihood, persons, fit and tests."""

from meristem_rasch._agreement import IccTable, IsrReport, icc, isr, krippendorff_alpha
from meristem_rasch._calibration import Calibration, LatentGroup
from meristem_rasch._cml import CML
from meristem_rasch._curves import information
from meristem_rasch._design import design_repeated
from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError, IdentificationError
from meristem_rasch._facets import BiasTable, FacetCalibration, Facets, FacetTable
from meristem_rasch._fit import FitTable, item_fit, person_fit, q3
from meristem_rasch._fractional import Fractional, FractionalFit
from meristem_rasch._jml import JML
from meristem_rasch._kernel import conditional_probabilities, log_esf
from meristem_rasch._mml import MML
from meristem_rasch._pairwise import Pairwise
from meristem_rasch._person_fit import lz_star
from meristem_rasch._persons import PersonScores, plausible_values, score_persons, score_table
from meristem_rasch._ratings import Ratings
from meristem_rasch._responses import Responses
from meristem_rasch._tests import LRTest, WaldTest, andersen_test, martin_loef_test, wald_test

__all__ = [
    "CML",
    "JML",
    "MML",
    "BiasTable",
    "Calibration",
    "ConvergenceError",
    "DataError",
    "ExistenceError",
    "FacetCalibration",
    "FacetTable",
    "Facets",
    "FitTable",
    "Fractional",
    "FractionalFit",
    "IccTable",
    "IdentificationError",
    "IsrReport",
    "LRTest",
    "LatentGroup",
    "Pairwise",
    "PersonScores",
    "Ratings",
    "Responses",
    "WaldTest",
    "andersen_test",
    "conditional_probabilities",
    "design_repeated",
    "icc",
    "information",
    "isr",
    "item_fit",
    "krippendorff_alpha",
    "log_esf",
    "lz_star",
    "martin_loef_test",
    "person_fit",
    "plausible_values",
    "q3",
    "score_persons",
    "score_table",
    "wald_test",
]
