"""Spend test-time compute on a file of questions: sample, vote and search, with curves and intervals."""
