"""Sparse crosscoders over the snapshots of one pre-training run."""

from meristem_crosscoders._attribution import (
    Attribution,
    gradient_attribution,
    integrated_gradients,
    patching_attribution,
)
from meristem_crosscoders._config import CrosscoderConfig
from meristem_crosscoders._correlation import rank_correlation
from meristem_crosscoders._curves import Curve, ablate_curve, restore_curve
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
from meristem_crosscoders._scaling import LatentScaling, latent_scaling, norm_agreement
from meristem_crosscoders._separability import Separability, separability
from meristem_crosscoders._snapshots import SnapshotSet, find_snapshots
from meristem_crosscoders._splice import Splice
from meristem_crosscoders._tasks import (
    Pairs,
    induction_pairs,
    ioi_pairs,
    read_pairs,
    sva_pairs,
)
from meristem_crosscoders._train import Progress, TrainConfig, TrainResult, train

__all__ = [
    "KINDS",
    "ActivationBatch",
    "Attribution",
    "Codes",
    "Crosscoder",
    "CrosscoderConfig",
    "Curve",
    "Harvest",
    "LatentScaling",
    "Lifecycle",
    "Normalisation",
    "Pairs",
    "Progress",
    "Quality",
    "Separability",
    "SnapshotSet",
    "Splice",
    "TrainConfig",
    "TrainResult",
    "TurningPoint",
    "ablate_curve",
    "auxk_loss",
    "dimensionality",
    "estimate_normalisation",
    "evaluate",
    "feature_cosines",
    "find_snapshots",
    "fold_normalisation",
    "gradient_attribution",
    "induction_pairs",
    "initialise",
    "integrated_gradients",
    "ioi_pairs",
    "l1_penalty",
    "latent_scaling",
    "lifecycle",
    "load_crosscoder",
    "norm_agreement",
    "patching_attribution",
    "preactivation_penalty",
    "rank_correlation",
    "read_pairs",
    "reconstruction_error",
    "restore_curve",
    "rotation",
    "save_crosscoder",
    "separability",
    "strengths",
    "sva_pairs",
    "tanh_penalty",
    "tanh_quad_penalty",
    "threshold_sensitivity",
    "train",
    "turning_point",
]
