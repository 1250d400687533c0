"""What the Meristem packages share."""

from meristem_core._arrays import (
    log_softmax,
    logsumexp,
    masked_mean,
    masked_sum,
    softmax_entropy,
)
from meristem_core._checkpoints import Checkpoint, latest_checkpoint, save_checkpoint
from meristem_core._files import sha256_of, write_atomic
from meristem_core._intervals import (
    Interval,
    bca_interval,
    bootstrap_interval,
    clustered_standard_error,
    resample_indices,
    wilson_interval,
)
from meristem_core._journal import Journal
from meristem_core._json import digest, read_json, write_json
from meristem_core._memory import free_memory
from meristem_core._ngrams import NGrams, count_ngrams
from meristem_core._order import shuffled_indices
from meristem_core._random import derive_seed, stream
from meristem_core._runs import RunDir, open_run
from meristem_core._segments import segment_logsumexp, segment_max, segment_mean, segment_sum
from meristem_core._streaming import Moments, Quantiles

__all__ = [
    "Checkpoint",
    "Interval",
    "Journal",
    "Moments",
    "NGrams",
    "Quantiles",
    "RunDir",
    "bca_interval",
    "bootstrap_interval",
    "clustered_standard_error",
    "count_ngrams",
    "derive_seed",
    "digest",
    "free_memory",
    "latest_checkpoint",
    "log_softmax",
    "logsumexp",
    "masked_mean",
    "masked_sum",
    "open_run",
    "read_json",
    "resample_indices",
    "save_checkpoint",
    "segment_logsumexp",
    "segment_max",
    "segment_mean",
    "segment_sum",
    "sha256_of",
    "shuffled_indices",
    "softmax_entropy",
    "stream",
    "wilson_interval",
    "write_atomic",
    "write_json",
]
