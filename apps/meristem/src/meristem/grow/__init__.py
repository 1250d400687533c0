"""Grow a language model and watch it learn: `grow` of `meristem.grow._pipeline` is the main job.

One module a stage; this file imports none of them, so that `--help` needs no torch.
"""
