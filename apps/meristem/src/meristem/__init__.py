"""Meristem: grow a language model, watch its capabilities appear, reproduce the papers."""
