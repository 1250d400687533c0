"""Rasch-family measurement: exact conditional likelihood, persons, fit and tests."""

from meristem_rasch._adaptive import CatRun, replay_cat, simulate_cat
from meristem_rasch._agreement import IccTable, IsrReport, icc, isr, krippendorff_alpha
from meristem_rasch._alignment import Alignment, Correlation, Rung, difficulty_alignment
from meristem_rasch._calibration import Calibration, LatentGroup
from meristem_rasch._cml import CML
from meristem_rasch._consistency import (
    RaterAgreement,
    cohen_kappa,
    fleiss_kappa,
    icc_one_way,
    rater_agreement,
)
from meristem_rasch._curves import information
from meristem_rasch._dependence import Dependence, guttman_errors, residual_dependence
from meristem_rasch._design import design_repeated
from meristem_rasch._dif import DifTable, logistic_dif, mantel_haenszel, rasch_dif
from meristem_rasch._dif_likelihood import likelihood_ratio_dif
from meristem_rasch._dispersion import Dispersion, DispersionBin, Overdispersion, overdispersion
from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError, IdentificationError
from meristem_rasch._estimable import collapse_null, drop_extreme
from meristem_rasch._facet_results import FacetCalibration
from meristem_rasch._facet_tables import BiasTable, FacetComparison, FacetTable
from meristem_rasch._facets import Facets
from meristem_rasch._fit import FitTable, item_fit, person_fit, q3
from meristem_rasch._fractional import Fractional, FractionalFit
from meristem_rasch._jml import JML
from meristem_rasch._kernel import conditional_probabilities, log_esf
from meristem_rasch._length import Association, LengthStudy, length_as_difficulty
from meristem_rasch._linking import Link, link
from meristem_rasch._lm_eval import is_lm_eval, read_lm_eval
from meristem_rasch._mml import MML
from meristem_rasch._multiple import benjamini_hochberg, holm
from meristem_rasch._pairwise import Pairwise
from meristem_rasch._person_fit import lz_star
from meristem_rasch._persons import PersonScores, plausible_values, score_persons, score_table
from meristem_rasch._ratings import Ratings
from meristem_rasch._readers import (
    ScoreMatrix,
    Table,
    read_ratings,
    read_responses,
    read_scores,
    read_table,
)
from meristem_rasch._responses import Responses
from meristem_rasch._simulate import simulate
from meristem_rasch._tests import LRTest, WaldTest, andersen_test, martin_loef_test, wald_test

__all__ = [
    "CML",
    "JML",
    "MML",
    "Alignment",
    "Association",
    "BiasTable",
    "Calibration",
    "CatRun",
    "ConvergenceError",
    "Correlation",
    "DataError",
    "Dependence",
    "DifTable",
    "Dispersion",
    "DispersionBin",
    "ExistenceError",
    "FacetCalibration",
    "FacetComparison",
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
    "LengthStudy",
    "Link",
    "Overdispersion",
    "Pairwise",
    "PersonScores",
    "RaterAgreement",
    "Ratings",
    "Responses",
    "Rung",
    "ScoreMatrix",
    "Table",
    "WaldTest",
    "andersen_test",
    "benjamini_hochberg",
    "cohen_kappa",
    "collapse_null",
    "conditional_probabilities",
    "design_repeated",
    "difficulty_alignment",
    "drop_extreme",
    "fleiss_kappa",
    "guttman_errors",
    "holm",
    "icc",
    "icc_one_way",
    "information",
    "is_lm_eval",
    "isr",
    "item_fit",
    "krippendorff_alpha",
    "length_as_difficulty",
    "likelihood_ratio_dif",
    "link",
    "log_esf",
    "logistic_dif",
    "lz_star",
    "mantel_haenszel",
    "martin_loef_test",
    "overdispersion",
    "person_fit",
    "plausible_values",
    "q3",
    "rasch_dif",
    "rater_agreement",
    "read_lm_eval",
    "read_ratings",
    "read_responses",
    "read_scores",
    "read_table",
    "replay_cat",
    "residual_dependence",
    "score_persons",
    "score_table",
    "simulate",
    "simulate_cat",
    "wald_test",
]
