"""What is studied: the snapshots at one site, and the text that they read."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from meristem_crosscoders import Harvest, SnapshotSet
from meristem_evolution._config import Settings
from meristem_evolution._text import Text

WINDOW_BATCHES = 16  # batches that are shuffled together


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Snapshots and text."""

    snapshots: SnapshotSet
    text: Text

    def train_stream(self, settings: Settings) -> Harvest:
        """Return the raw activations of the training rows, as often as the settings' tokens need.

        First positions and ids that are no text are left out.
        """
        once = self._harvest(self.text.train, settings, epochs=1)
        epochs = math.ceil(settings.tokens / once.epoch_tokens)
        return self._harvest(self.text.train, settings, epochs=epochs)

    def held_out_stream(self, settings: Settings) -> Harvest:
        """Return the raw activations of the held-out rows, each token once."""
        return self._harvest(self.text.held_out, settings, epochs=1)

    def _harvest(
        self, rows: Integer[np.ndarray, "N T"], settings: Settings, *, epochs: int
    ) -> Harvest:
        return Harvest(
            self.snapshots,
            rows,
            batch_tokens=settings.batch,
            window_tokens=WINDOW_BATCHES * settings.batch,
            epochs=epochs,
            drop_ids=self.text.special,
            drop_first=1,
            seed=settings.seed,
        )
