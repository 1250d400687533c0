"""What pre-training leaves to the stages after it."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from meristem.grow._config import Scale
from meristem.grow._corpus import Corpus
from meristem.grow._model import load_snapshot
from meristem.grow._pretrain import snapshot_path
from meristem.grow._tokens import load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """A run's snapshots, and the text and the tokens that they were taught."""

    run: Path
    scale: Scale
    corpus: Corpus
    steps: list[int]  # of the snapshots

    @property
    def texts(self) -> Path:
        """Return the folder of the corpus stage."""
        return self.run / "corpus"

    @property
    def tokens(self) -> Path:
        """Return the folder of the token stage."""
        return self.run / "tokens"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer of all snapshots."""
        return load_tokenizer(self.tokens)

    def path(self, step: int) -> Path:
        """Return the folder of a snapshot."""
        return snapshot_path(self.run / "pretrain" / "snapshots", step)

    def model(self, step: int) -> PreTrainedModel:
        """Return the model of a snapshot."""
        return load_snapshot(self.path(step), context=self.scale.context)

    def grown(self) -> PreTrainedModel:
        """Return the model at the end of pre-training."""
        return self.model(self.steps[-1])
