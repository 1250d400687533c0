import numpy as np
import pytest

from meristem_core.testing import data_dir, pytest_configure  # noqa: F401
from meristem_testtime import Traces


@pytest.fixture(scope="session")
def make():
    """Traces of questions given as lists of (answer, tokens, score); class 0 is right."""

    def built(questions, right=(0,)):
        rows = [(q, *sample) for q, samples in enumerate(questions) for sample in samples]
        question, answer, tokens, score = (np.array(column) for column in zip(*rows, strict=True))
        return Traces(
            question=question.astype(np.int64),
            answer=answer.astype(np.int64),
            tokens=tokens.astype(np.int64),
            correct=np.isin(answer, right),
            questions=tuple(f"q{i}" for i in range(len(questions))),
            scores={"reward": score.astype(np.float64)},
        )

    return built
