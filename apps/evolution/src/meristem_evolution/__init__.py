"""Feature evolution over pre-training snapshots, from checkpoints to a page to explore."""

from meristem_evolution._config import EvolutionConfig, Settings
from meristem_evolution._explorer import KINDS, Column, Contexts, Explorer, Features
from meristem_evolution._page import render_explorer

__all__ = [
    "KINDS",
    "Column",
    "Contexts",
    "EvolutionConfig",
    "Explorer",
    "Features",
    "Settings",
    "render_explorer",
]
