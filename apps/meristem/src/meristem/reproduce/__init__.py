"""Reproduce the papers behind Meristem: one module a paper, each a function that returns rows."""
