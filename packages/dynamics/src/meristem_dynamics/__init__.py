"""Stable manifolds, degenerate conjugacies and shadowing certificates, with a verifier."""

from meristem_dynamics import ops, zoo
from meristem_dynamics._ball import Ball
from meristem_dynamics._certificate import Certificate, certify, load_certificate
from meristem_dynamics._conjugacy import Conjugacy, conjugacy
from meristem_dynamics._coordinates import (
    FatouCoordinate,
    KoenigsCoordinate,
    fatou_coordinate,
    koenigs,
)
from meristem_dynamics._enclosure import Enclosure, certify_manifold
from meristem_dynamics._finite import FiniteShadowing, finite_shadowing
from meristem_dynamics._fixed_points import FixedPoint, fixed_point
from meristem_dynamics._flow import certify_flow
from meristem_dynamics._forms import (
    FormReport,
    SaddleReport,
    check_degenerate_saddle,
    finite_shadowing_bound,
    is_positive_definite,
)
from meristem_dynamics._gradients import Gradient, runge_kutta, shadowing_gradient
from meristem_dynamics._growth import Curve, grow
from meristem_dynamics._invariant import Manifold, invariant_manifold
from meristem_dynamics._long import LongCertificate, certify_long
from meristem_dynamics._lyapunov import (
    CovariantVectors,
    Spectrum,
    covariant_vectors,
    finite_time_exponents,
    lyapunov,
)
from meristem_dynamics._parabolic import DegenerateGraph, Wedge, certify_graph, degenerate_graph
from meristem_dynamics._pointwise import (
    ConeReport,
    Exponents,
    PointwiseReport,
    Rates,
    check_pointwise,
    cone_check,
    pointwise_rates,
)
from meristem_dynamics._refine import Refined, refine
from meristem_dynamics._splitting import Gains, gains
from meristem_dynamics._stability import (
    Expansivity,
    StabilityReport,
    expansivity,
    topological_conjugacy,
)
from meristem_dynamics._systems import (
    Flow,
    Map,
    iterate,
    jacobians,
    load_system,
    pseudo_orbit,
)
from meristem_dynamics._taylor import integrate, time_map
from meristem_dynamics._uniform import UniformCertificate, certify_uniform

__all__ = [
    "Ball",
    "Certificate",
    "ConeReport",
    "Conjugacy",
    "CovariantVectors",
    "Curve",
    "DegenerateGraph",
    "Enclosure",
    "Expansivity",
    "Exponents",
    "FatouCoordinate",
    "FiniteShadowing",
    "FixedPoint",
    "Flow",
    "FormReport",
    "Gains",
    "Gradient",
    "KoenigsCoordinate",
    "LongCertificate",
    "Manifold",
    "Map",
    "PointwiseReport",
    "Rates",
    "Refined",
    "SaddleReport",
    "Spectrum",
    "StabilityReport",
    "UniformCertificate",
    "Wedge",
    "certify",
    "certify_flow",
    "certify_graph",
    "certify_long",
    "certify_manifold",
    "certify_uniform",
    "check_degenerate_saddle",
    "check_pointwise",
    "cone_check",
    "conjugacy",
    "covariant_vectors",
    "degenerate_graph",
    "expansivity",
    "fatou_coordinate",
    "finite_shadowing",
    "finite_shadowing_bound",
    "finite_time_exponents",
    "fixed_point",
    "gains",
    "grow",
    "integrate",
    "invariant_manifold",
    "is_positive_definite",
    "iterate",
    "jacobians",
    "koenigs",
    "load_certificate",
    "load_system",
    "lyapunov",
    "ops",
    "pointwise_rates",
    "pseudo_orbit",
    "refine",
    "runge_kutta",
    "shadowing_gradient",
    "time_map",
    "topological_conjugacy",
    "zoo",
]
