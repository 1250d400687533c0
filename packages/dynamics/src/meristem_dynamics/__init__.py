"""Stable manifolds, degenerate conjugacies and shadowing with certificates that an independent checker verifies."""
