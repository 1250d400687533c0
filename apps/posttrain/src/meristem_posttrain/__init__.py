"""Fine-tune and align a causal language model with any loss by name."""

from meristem_posttrain._data import Encoded, Form, Rows, encode, pad, read_records
from meristem_posttrain._evaluate import evaluate, generated_lengths
from meristem_posttrain._objective import Given, Objective, find_objective, objective_names
from meristem_posttrain._single import SingleProcess
from meristem_posttrain._train import Schedule, fit

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
