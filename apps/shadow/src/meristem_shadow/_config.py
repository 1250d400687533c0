"""What the user decides, command by command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

SystemName = Annotated[str, tyro.conf.Positional]
Parameters = Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-p"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListConfig:
    """List the systems that have names, with their parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoConfig:
    """Say what is known of one system: parameters, exact facts."""

    system: SystemName
    """A name from `meristem shadow list`, or FILE.py, or FILE.py:NAME."""

    params: Parameters = ()
    """Parameters, such as a=1.4; decimals are exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrbitConfig:
    """Compute an orbit and prove that a true orbit of the exact map stays near it.

    The proof is written as data and checked again in Arb arithmetic by code that shares nothing
    with the code that found it. Where no proof of the whole orbit closes, the step is named and the
    longest segment found is certified. A run with --blocks resumes where it was stopped.
    """

    system: SystemName
    """A map's name from `meristem shadow list`, or FILE.py, or FILE.py:NAME."""

    params: Parameters = ()
    """Parameters, such as a=1.4; decimals are exact."""

    steps: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 10_000
    """Steps of the orbit."""

    start: str = ""
    """Start, such as 0.1,0.2; by default 0.1 in every variable, settled for 100 steps."""

    noise: float = 0.0
    """Size of an error added to every step, uniform; 0 leaves the rounding errors alone."""

    refine: bool = False
    """Bring the orbit nearer to a true one first; the radius is then around the refined orbit."""

    blocks: int = 0
    """Work in blocks of this many steps, for orbits longer than the memory; 0 for none."""

    n_unstable: int | None = None
    """Number of expanding directions; by default that of the orbit's positive exponents."""

    verify: bool = True
    """Check the certificate in Arb, about 30 microseconds a step."""

    out: Path = Path("runs/shadow")
    """Folder for the certificate, result.json and report.html."""

    seed: int = 0
    """Of the noise."""

    json: bool = False
    """Print the result as JSON instead of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """Check a certificate in Arb arithmetic: every inequality of every step."""

    file: Annotated[Path, tyro.conf.Positional]
    """A certificate, or the folder of one in blocks."""

    system: SystemName
    """The map that it is about."""

    params: Parameters = ()
    """Parameters, such as a=1.4; decimals are exact."""

    json: bool = False
    """Print the verdict as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Treat rounded training as a pseudo-orbit of the exact optimiser and look for its shadow.

    A model and its tokens come from a run of `meristem grow`. From one snapshot the model is
    trained twice on the same batches: in the arithmetic of --rounding, and in float64. Then the
    start of the float64 training is moved along its expanding directions, so that it follows the
    rounded one as long as it can. Nothing here is a proof: float64 stands for exact arithmetic,
    and a trajectory is exhibited, not enclosed.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of `meristem grow`."""

    snapshot: int | None = None
    """Step of the snapshot to start from; by default the one in the middle."""

    rounding: Literal["bfloat16", "float32", "reordered"] = "bfloat16"
    """Arithmetic of the rounded training; reordered is float32 that sums each batch in another
    order."""

    steps: int = 100
    """Optimiser steps."""

    directions: int = 6
    """Expanding directions along which the start may move."""

    sequences: int = 4
    """Sequences of a batch."""

    tokens: int = 64
    """Tokens of a sequence."""

    lr: float = 1e-3
    """Learning rate of AdamW, constant."""

    out: Path = Path("runs/shadow-training")
    """Folder for result.json and report.html."""

    seed: int = 0
    """Of the batches."""

    json: bool = False
    """Print the result as JSON instead of a sentence."""
