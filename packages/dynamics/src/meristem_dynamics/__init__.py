"""Stable manifolds, degenerate conjugacies and shadowing certificates, with a verifier."""

from meristem_dynamics import ops, zoo
from meristem_dynamics._ball import Ball
from meristem_dynamics._certificate import Certificate, certify, load_certificate
from meristem_dynamics._long import LongCertificate, certify_long
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
    "Flow",
    "Gains",
    "LongCertificate",
    "Map",
    "Refined",
    "UniformCertificate",
    "certify",
    "certify_long",
    "certify_uniform",
    "gains",
    "iterate",
    "jacobians",
    "load_certificate",
    "load_system",
    "ops",
    "pseudo_orbit",
    "refine",
    "zoo",
]
