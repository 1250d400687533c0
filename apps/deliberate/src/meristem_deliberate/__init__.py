"""Spend test-time compute on a file of questions: sample, vote, revise, with intervals."""
