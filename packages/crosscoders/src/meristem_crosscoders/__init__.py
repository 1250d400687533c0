"""Sparse crosscoders over the snapshots of one pre-training run."""

from meristem_crosscoders._attribution import (
    Attribution,
    gradient_attribution,
    integrated_gradients,
    patching_attribution,
)
from meristem_crosscoders._complexity import ContextLength, context_length
from meristem_crosscoders._config import CrosscoderConfig
from meristem_crosscoders._contexts import Contexts, top_contexts
from meristem_crosscoders._correlation import rank_correlation
from meristem_crosscoders._curves import Curve, ablate_curve, restore_curve
from meristem_crosscoders._entries import OpenCodes
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
from meristem_crosscoders._files import join_crosscoders, load_crosscoder, save_crosscoder
from meristem_crosscoders._foreign import (
    read_crosscoder_learning,
    read_llamascopium,
    write_crosscoder_learning,
    write_llamascopium,
)
from meristem_crosscoders._harvest import ActivationBatch, Harvest
from meristem_crosscoders._held_out import HeldOut, held_out_snapshot
from meristem_crosscoders._initialise import initialise
from meristem_crosscoders._losses import (
    auxk_loss,
    l1_penalty,
    preactivation_penalty,
    reconstruction_error,
    strengths,
    tanh_penalty,
    tanh_quad_penalty,
)
from meristem_crosscoders._matching import Matching, assign_features, match_features
from meristem_crosscoders._memory import check_memory
from meristem_crosscoders._model import Codes, Crosscoder
from meristem_crosscoders._neighbours import nearest_features
from meristem_crosscoders._normalisation import (
    Normalisation,
    estimate_normalisation,
    fold_normalisation,
)
from meristem_crosscoders._phases import Phases, ngram_phases
from meristem_crosscoders._quality import Quality, evaluate
from meristem_crosscoders._run import load_normalisation
from meristem_crosscoders._scaling import LatentScaling, latent_scaling, norm_agreement
from meristem_crosscoders._schedule import Progress, TrainConfig, TrainResult
from meristem_crosscoders._select import open_codes
from meristem_crosscoders._sensitivity import (
    EmergenceAgreement,
    Thinned,
    WarmupEffect,
    compare_emergence,
    every_second,
    spacing_sensitivity,
    warmup_effect,
)
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
from meristem_crosscoders._train import train
from meristem_crosscoders._triggers import TRIGGERS, Triggers, feature_triggers

__all__ = [
    "KINDS",
    "TRIGGERS",
    "ActivationBatch",
    "Attribution",
    "Codes",
    "ContextLength",
    "Contexts",
    "Crosscoder",
    "CrosscoderConfig",
    "Curve",
    "EmergenceAgreement",
    "Harvest",
    "HeldOut",
    "LatentScaling",
    "Lifecycle",
    "Matching",
    "Normalisation",
    "OpenCodes",
    "Pairs",
    "Phases",
    "Progress",
    "Quality",
    "Separability",
    "SnapshotSet",
    "Splice",
    "Thinned",
    "TrainConfig",
    "TrainResult",
    "Triggers",
    "TurningPoint",
    "WarmupEffect",
    "ablate_curve",
    "assign_features",
    "auxk_loss",
    "check_memory",
    "compare_emergence",
    "context_length",
    "dimensionality",
    "estimate_normalisation",
    "evaluate",
    "every_second",
    "feature_cosines",
    "feature_triggers",
    "find_snapshots",
    "fold_normalisation",
    "gradient_attribution",
    "held_out_snapshot",
    "induction_pairs",
    "initialise",
    "integrated_gradients",
    "ioi_pairs",
    "join_crosscoders",
    "l1_penalty",
    "latent_scaling",
    "lifecycle",
    "load_crosscoder",
    "load_normalisation",
    "match_features",
    "nearest_features",
    "ngram_phases",
    "norm_agreement",
    "open_codes",
    "patching_attribution",
    "preactivation_penalty",
    "rank_correlation",
    "read_crosscoder_learning",
    "read_llamascopium",
    "read_pairs",
    "reconstruction_error",
    "restore_curve",
    "rotation",
    "save_crosscoder",
    "separability",
    "spacing_sensitivity",
    "strengths",
    "sva_pairs",
    "tanh_penalty",
    "tanh_quad_penalty",
    "threshold_sensitivity",
    "top_contexts",
    "train",
    "turning_point",
    "warmup_effect",
    "write_crosscoder_learning",
    "write_llamascopium",
]
