"""Paper 2509.17196: here its statistical phase, on a model grown for the purpose.

The features, their emergence and their turning point need crosscoders and are not here yet.
"""

from pathlib import Path

from meristem._rows import Row
from meristem.grow._config import GrowConfig
from meristem.grow._pipeline import grow


def reproduce(out: Path, quick: bool, seed: int) -> list[Row]:
    """Grow a model (micro if quick, else tiny) and return the verdicts on its phases."""
    scale = "micro" if quick else "tiny"
    run = out / f"grow-{scale}-{seed}"
    return grow(GrowConfig(scale=scale, out=run, seed=seed), say=lambda line: None).rows
