"""Stable manifolds, degenerate conjugacies and shadowing certificates, with a verifier."""

from meristem_dynamics import ops, zoo
from meristem_dynamics._ball import Ball
from meristem_dynamics._certificate import Certificate, certify, load_certificate
from meristem_dynamics._conjugacy import Conjugacy, conjugacy
from meristem_dynamics._enclosure import Enclosure, certify_manifold
from meristem_dynamics._forms import (
    FormReport,
    SaddleReport,
    check_degenerate_saddle,
    finite_shadowing_bound,
    is_positive_definite,
)
from meristem_dynamics._growth import Curve, grow
from meristem_dynamics._invariant import FixedPoint, Manifold, fixed_point, invariant_manifold
from meristem_dynamics._long import LongCertificate, certify_long
from meristem_dynamics._parabolic import DegenerateGraph, Wedge, certify_graph, degenerate_graph
from meristem_dynamics._refine import Refined, refine
from meristem_dynamics._splitting import Gains, gains
from meristem_dynamics._systems import (
    Flow,
    Map,
    iterate,
    jacobians,
    load_system,
    pseudo_orbit,
)
from meristem_dynamics._uniform import UniformCertificate, certify_uniform

__all__ = [
    "Ball",
    "Certificate",
    "Conjugacy",
    "Curve",
    "DegenerateGraph",
    "Enclosure",
    "FixedPoint",
    "Flow",
    "FormReport",
    "Gains",
    "LongCertificate",
    "Manifold",
    "Map",
    "Refined",
    "SaddleReport",
    "UniformCertificate",
    "Wedge",
    "certify",
    "certify_graph",
    "certify_long",
    "certify_manifold",
    "certify_uniform",
    "check_degenerate_saddle",
    "conjugacy",
    "degenerate_graph",
    "finite_shadowing_bound",
    "fixed_point",
    "gains",
    "grow",
    "invariant_manifold",
    "is_positive_definite",
    "iterate",
    "jacobians",
    "load_certificate",
    "load_system",
    "ops",
    "pseudo_orbit",
    "refine",
    "zoo",
]
