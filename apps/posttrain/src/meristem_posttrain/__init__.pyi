# The public names, for type checkers and for __init__.py, which imports each at its first use.
# ruff: noqa: TID252 (lazy_loader reads relative imports only)

from ._data import Encoded, Form, Rows, encode, pad, read_records
from ._evaluate import evaluate, generated_lengths
from ._objective import Given, Objective, find_objective, objective_names
from ._single import SingleProcess
from ._train import Schedule, fit

__all__ = [
    "Encoded",
    "Form",
    "Given",
    "Objective",
    "Rows",
    "Schedule",
    "SingleProcess",
    "encode",
    "evaluate",
    "find_objective",
    "fit",
    "generated_lengths",
    "objective_names",
    "pad",
    "read_records",
]
