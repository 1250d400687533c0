"""Certified shadowing orbits of dynamical systems from the command line."""
