"""Sparse crosscoders over the snapshots of one pre-training run."""

from meristem_crosscoders._config import CrosscoderConfig
from meristem_crosscoders._evolution import (
    KINDS,
    Lifecycle,
    TurningPoint,
    dimensionality,
    feature_cosines,
    lifecycle,
    rotation,
    threshold_sensitivity,
    turning_point,
)
from meristem_crosscoders._files import load_crosscoder, save_crosscoder
from meristem_crosscoders._foreign import (
    read_crosscoder_learning,
    read_llamascopium,
    write_crosscoder_learning,
    write_llamascopium,
)
from meristem_crosscoders._harvest import ActivationBatch, Harvest
from meristem_crosscoders._losses import (
    auxk_loss,
    l1_penalty,
    preactivation_penalty,
    reconstruction_error,
    strengths,
    tanh_penalty,
    tanh_quad_penalty,
)
from meristem_crosscoders._model import Codes, Crosscoder, initialise
from meristem_crosscoders._normalisation import (
    Normalisation,
    estimate_normalisation,
    fold_normalisation,
)
from meristem_crosscoders._quality import Quality, evaluate
from meristem_crosscoders._run import load_normalisation
from meristem_crosscoders._schedule import Progress, TrainConfig, TrainResult
from meristem_crosscoders._snapshots import SnapshotSet, find_snapshots
from meristem_crosscoders._train import train

__all__ = [
    "KINDS",
    "ActivationBatch",
    "Codes",
    "Crosscoder",
    "CrosscoderConfig",
    "Harvest",
    "Lifecycle",
    "Normalisation",
    "Progress",
    "Quality",
    "SnapshotSet",
    "TrainConfig",
    "TrainResult",
    "TurningPoint",
    "auxk_loss",
    "dimensionality",
    "estimate_normalisation",
    "evaluate",
    "feature_cosines",
    "find_snapshots",
    "fold_normalisation",
    "initialise",
    "l1_penalty",
    "lifecycle",
    "load_crosscoder",
    "load_normalisation",
    "preactivation_penalty",
    "read_crosscoder_learning",
    "read_llamascopium",
    "reconstruction_error",
    "rotation",
    "save_crosscoder",
    "strengths",
    "tanh_penalty",
    "tanh_quad_penalty",
    "threshold_sensitivity",
    "train",
    "turning_point",
    "write_crosscoder_learning",
    "write_llamascopium",
]
