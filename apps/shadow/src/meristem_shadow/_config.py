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
    """Compute an orbit and prove that a true orbit of the exact map or flow stays near it.

    The proof is written as data and checked again in Arb arithmetic by code that shares nothing
    with the code that found it. Where no proof of the whole orbit closes, the step is named and the
    longest segment found is certified. A run with --blocks resumes where it was stopped.
    """

    system: SystemName
    """A name from `meristem shadow list`, or FILE.py, or FILE.py:NAME."""

    params: Parameters = ()
    """Parameters, such as a=1.4; decimals are exact."""

    steps: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 10_000
    """Steps of the orbit."""

    start: str = ""
    """Start, such as 0.1,0.2; by default 0.1 in every variable, settled for 100 steps of a map,
    1000 of a flow."""

    step: float | None = None
    """Time between points of a flow, 1/64 by default; one too long for its series is an error."""

    noise: float = 0.0
    """Size of an error added to every step of a map, uniform; 0 leaves rounding errors alone."""

    refine: bool = False
    """Bring the orbit nearer to a true one first; the radius is then around the refined orbit."""

    blocks: int = 0
    """Work in blocks of this many steps, for orbits longer than the memory; 0 for none."""

    n_unstable: int | None = None
    """Number of expanding directions; by default that of the orbit's positive exponents."""

    verify: bool = True
    """Check the certificate in Arb: about 30 microseconds a step of a map, 2 ms of a flow."""

    out: Path = Path("runs/shadow")
    """Folder for the certificate, result.json and report.html."""

    seed: int = 0
    """Of the noise."""

    json: bool = False
    """Print the result as JSON instead of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifoldConfig:
    """Compute the stable or unstable manifold of a fixed point, bound its error, grow its branches.

    A hyperbolic point has a power series that solves the invariance equation; a degenerate saddle
    (linear part the identity) a graph, whose series is cut after its smallest term. Branches are
    images of the local curve, never interpolated.
    """

    system: SystemName
    """A name from `meristem shadow list`, or FILE.py, or FILE.py:NAME."""

    params: Parameters = ()
    """Parameters, such as a=1.4; decimals are exact."""

    at: str = ""
    """Near the fixed point, such as 0.6,0.2; by default the known one, or 0."""

    kind: Literal["unstable", "stable"] = "unstable"
    """Which manifold."""

    dim: Literal[1, 2] = 1
    """1: a curve along the strongest direction; 2: a surface along the two strongest."""

    order: int | None = None
    """Highest degree of the series; 40 for curves and 15 for surfaces by default."""

    length: float = 10.0
    """Arc length of each branch of a map's curve; 0 for the local manifold alone."""

    certify: bool = True
    """Prove a bound of the local curve's error, in Arb."""

    out: Path = Path("runs/shadow-manifold")
    """Folder for manifold.npz, result.json and report.html."""

    json: bool = False
    """Print the result as JSON instead of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConjugacyConfig:
    """Compute the conjugacy h of a planar saddle to a decoupled one, h(F z) = G(h z), on a grid.

    Exit times along both directions of time are the new coordinates; it works at hyperbolic and at
    degenerate saddles. Residual and monotony are measured, not proved.
    """

    system: SystemName
    """A planar map's name from `meristem shadow list`, or FILE.py, or FILE.py:NAME."""

    params: Parameters = ()
    """Parameters, such as a=1.4; decimals are exact."""

    at: str = ""
    """Near the fixed point, such as 0.6,0.2; by default the known one, or 0."""

    target: Literal["matched", "linear"] = "matched"
    """matched: G moves like F along its manifolds; linear: G = (x / 2, 2 y)."""

    edge: float | None = None
    """Half the side of the square; by default the largest on which the cone conditions hold."""

    grid: int = 24
    """Points along each side of the square."""

    out: Path = Path("runs/shadow-conjugacy")
    """Folder for conjugacy.npz, result.json and report.html."""

    json: bool = False
    """Print the result as JSON instead of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperbolicityConfig:
    """Test how hyperbolic a planar map is near a fixed point.

    Cones are proved box by box. At a degenerate saddle the six conditions are decided exactly. Of a
    map with a boundary distance the rates along orbits are measured, and the conditions U, S, R of
    pointwise hyperbolicity are read off.
    """

    system: SystemName
    """A planar map's name from `meristem shadow list`, or FILE.py, or FILE.py:NAME."""

    params: Parameters = ()
    """Parameters, such as a=1.4; decimals are exact."""

    at: str = ""
    """Near the fixed point, such as 0.6,0.2; by default the known one, or 0."""

    reach: float | None = None
    """Half the side of the square of boxes; by default 0.1, or the radius of the six conditions."""

    boxes: int = 32
    """Boxes along each side of the square."""

    alpha: float | None = None
    """Hoelder exponent of the derivative; by default the known one, or 1."""

    orbits: int = 24
    """Orbits past the boundary along which rates are measured."""

    out: Path = Path("runs/shadow-hyperbolicity")
    """Folder for result.json and report.html."""

    seed: int = 0
    """Of the orbits."""

    json: bool = False
    """Print the result as JSON instead of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """Check a certificate in Arb arithmetic: every inequality of every step."""

    file: Annotated[Path, tyro.conf.Positional]
    """A certificate, or the folder of one in blocks."""

    system: SystemName
    """The map or flow that it is about."""

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
