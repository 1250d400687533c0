"""Stable manifolds, degenerate conjugacies and shadowing certificates, with a verifier."""

from meristem_dynamics import ops, zoo
from meristem_dynamics._ball import Ball
from meristem_dynamics._systems import (
    Flow,
    Map,
    iterate,
    jacobians,
    load_system,
    pseudo_orbit,
)

__all__ = [
    "Ball",
    "Flow",
    "Map",
    "iterate",
    "jacobians",
    "load_system",
    "ops",
    "pseudo_orbit",
    "zoo",
]
