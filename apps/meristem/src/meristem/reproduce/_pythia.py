"""The public evaluations of Pythia over its training, to lay beside a small model's curves.

The file is a table with the columns version, model, shots, step, task, metric and value, one row
per number of the evaluations in EleutherAI/pythia.
"""

from dataclasses import dataclass
from pathlib import Path

from meristem_core.command import UsageError

FILE = Path("scaling/pythia_evals_by_step.parquet")
MODEL, VERSION, SHOTS = "pythia-160m", "pythia-v1", "zero-shot"
TASKS = ("lambada_openai", "sciq", "piqa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Accuracy of one task over the training of one model."""

    task: str
    steps: list[int]
    accuracy: list[float]

    def leaves(self, rise: float) -> int:
        """Return the first step at which accuracy is above its start by a share of its range."""
        start, top = self.accuracy[0], max(self.accuracy)
        level = start + rise * (top - start)
        pairs = zip(self.steps, self.accuracy, strict=True)
        return next(step for step, value in pairs if value > level)


def read_trajectories(data: Path) -> list[Trajectory]:
    """Return the evaluations of Pythia-160M, the smaller model of the paper.

    Parameters
    ----------
    data
        Folder that holds `scaling/pythia_evals_by_step.parquet`.

    Raises
    ------
    UsageError
        If the file is missing, or cannot be read.
    """
    path = data / FILE
    if not path.is_file():
        raise UsageError(
            f"{path} not found; name in MERISTEM_DATA a folder that holds {FILE}, or unset it"
        )
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Pythia's evaluations need pyarrow; install it with: pip install 'meristem[data]'"
        ) from error
    chosen = [
        ("version", "=", VERSION),
        ("model", "=", MODEL),
        ("shots", "=", SHOTS),
        ("metric", "=", "acc"),
    ]
    rows = parquet.read_table(path, filters=chosen).to_pylist()
    found: list[Trajectory] = []
    for task in TASKS:
        values = sorted({row["step"]: row["value"] for row in rows if row["task"] == task}.items())
        if not values:
            raise UsageError(f"{path} has no {task} of {MODEL}; give the whole file")
        found.append(
            Trajectory(
                task=task,
                steps=[step for step, _ in values],
                accuracy=[float(value) for _, value in values],
            )
        )
    return found
