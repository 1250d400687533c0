"""Manifolds, conjugacies and certified shadowing orbits of a dynamical system from the command line."""
