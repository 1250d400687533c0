"""The crosscoder.

- one pre-activation per feature for all snapshots: z = sum_s <W_enc^s, x^s> + b_enc
- one decoder row per feature and snapshot; its norm says how strong the feature is there
- a code is z where the gate is open, 0 elsewhere; x^s is rebuilt as sum_i f_i^s W_dec,i^s + b_dec^s

Shape letters: B tokens, F features, S snapshots, D width, G gates per feature (S or 1).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from meristem_core import derive_seed
from meristem_crosscoders._config import CrosscoderConfig
from meristem_crosscoders._gates import jumprelu, largest_per_batch, largest_per_token
from meristem_crosscoders._memory import require, weight_bytes

THRESHOLD_DECAY = 0.999  # of the average that becomes batchtopk's threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Pre-activations and codes of a batch of tokens."""

    preactivation: Float[Tensor, "B F"]  # z
    value: Float[Tensor, "B F S"]  # f: z where the gate is open

    def fired(self) -> Bool[Tensor, "B F"]:
        """Return whether a feature is open at any snapshot."""
        return (self.value != 0).any(-1)

    def l0(self) -> Float[Tensor, " S"]:
        """Return the mean number of open features per token, at each snapshot."""
        return (self.value != 0).sum(1).double().mean(0)


class Crosscoder(nn.Module):
    """A sparse dictionary shared by the snapshots of one run.

    Parameters
    ----------
    config
        Shape and activation.
    part
        (rank, processes): holds that share of the features only, equal to those of the whole; for
        `train` with `cut="features"`.

    Attributes
    ----------
    W_enc, W_dec
        Shapes (F, encoded snapshots, D) and (F, S, D). All snapshots start from one random unit
        row per feature, and the encoder equals the decoder; `initialise` finds a better norm.
    b_enc, b_dec
        Shapes (F,) and (S, D), zero at the start.
    log_threshold
        Shape (F,), for "jumprelu"; None otherwise.
    scale
        Shape (S,): 1, or after `fold_normalisation` what the raw activations were multiplied by.
    inference_threshold, threshold_batches
        Shape (G,), for "batchtopk": the mean smallest selected value, and of how many batches.

    References
    ----------
    arXiv 2509.17196 (model over snapshots); Lindsey et al. 2024, "Sparse crosscoders".
    """

    log_threshold: Tensor | None
    scale: Tensor
    inference_threshold: Tensor
    threshold_batches: Tensor

    def __init__(self, config: CrosscoderConfig, *, part: tuple[int, int] = (0, 1)) -> None:
        super().__init__()
        rows = rows_of(config, part)
        needed = weight_bytes(config) // part[1]
        require(needed, "a crosscoder of this size", torch.get_default_device())
        F, S, D = rows.stop - rows.start, len(config.steps), config.d_model
        self.config, self.part = config, part
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "crosscoder"))
        every_FD = 2 * torch.rand(config.n_features, D, generator=generator) - 1
        rows_FD = nn.functional.normalize(every_FD[rows])
        rows_FSD = rows_FD[:, None].expand(F, S, D)
        self.W_enc = nn.Parameter(rows_FSD[:, : len(config.encoded)].clone())
        self.W_dec = nn.Parameter(rows_FSD.clone())
        self.b_enc = nn.Parameter(torch.zeros(F))
        self.b_dec = nn.Parameter(torch.zeros(S, D))
        start = torch.full((F,), config.threshold_init).log()
        is_jumprelu = config.activation == "jumprelu"
        self.register_parameter("log_threshold", nn.Parameter(start) if is_jumprelu else None)
        gates = S if config.gate == "snapshot" else 1
        self.register_buffer("scale", torch.ones(S))
        self.register_buffer("inference_threshold", torch.zeros(gates))
        self.register_buffer("threshold_batches", torch.zeros(gates, dtype=torch.int64))

    def norms(self) -> Float[Tensor, "F S"]:
        """Return the decoder norms in normalised space, so that they compare over snapshots."""
        return self.W_dec.norm(dim=-1) * self.scale

    def gate_norms(self, norms_FS: Float[Tensor, "F S"] | None = None) -> Float[Tensor, "F G"]:
        """Return what scales a pre-activation before its gate; `norms_FS` if they are known."""
        norms_FS = self.norms() if norms_FS is None else norms_FS
        if self.config.gate == "snapshot":
            return norms_FS
        match self.config.code_norm:
            case "sum":
                return norms_FS.sum(1, keepdim=True)
            case "l2":
                return norms_FS.norm(dim=1, keepdim=True)
            case "none":
                return torch.ones_like(norms_FS[:, :1])

    def thresholds(self) -> Float[Tensor, "F S"]:
        """Return thresholds on z times the norm of the stored decoder row, for a "snapshot" gate.

        After folding this is t / scale: what another implementation needs to open the same gates.

        Raises
        ------
        ValueError
            If the gate is shared or the activation selects by rank within its batch.
        """
        if self.config.gate == "shared" or self.config.activation == "topk":
            raise ValueError(
                f"gate {self.config.gate!r} of {self.config.activation!r} has no threshold per "
                "snapshot; compare preactivations with gate_norms() instead"
            )
        return self.gate_thresholds().expand(self.config.n_features, -1) / self.scale

    def preactivations(self, x_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "B F"]:
        """Return z, one number per token and feature."""
        self.check_shape(x_BSD)
        return self.encoded(x_BSD) @ self.W_enc.flatten(1).T + self.b_enc

    def encoded(self, x_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "B E"]:
        """Return the activations of the snapshots that are encoded, side by side."""
        if self.config.encode_from is None:
            return x_BSD.flatten(1)
        return x_BSD[:, list(self.config.encoded)].flatten(1)

    def encode(self, x_BSD: Float[Tensor, "B S D"]) -> Codes:
        """Return the codes of activations, normalised ones before folding and raw ones after.

        Raises
        ------
        ValueError
            If this is a part, the shape is not (B, S, D), or a "batchtopk" crosscoder in evaluation
            mode has seen no training batch, so that its threshold is unknown.
        """
        self.check_whole()
        z_BF = self.preactivations(x_BSD)
        norms_FG = self.gate_norms().detach()
        if self.log_threshold is not None:
            f_BFG = jumprelu(z_BF, norms_FG, self.log_threshold, self.config.ste_width)
        else:
            f_BFG = z_BF[..., None] * self._is_open(z_BF.detach()[..., None] * norms_FG)
        f_BFS = f_BFG.expand(-1, -1, len(self.config.steps))
        return Codes(preactivation=z_BF, value=f_BFS)

    def decode(self, f_BFS: Float[Tensor, "B F S"]) -> Float[Tensor, "B S D"]:
        """Return the reconstruction of every snapshot's activations."""
        return torch.einsum("bfs,fsd->bsd", f_BFS, self.W_dec) + self.b_dec

    def forward(self, x_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        """Return the reconstruction of `x_BSD`."""
        return self.decode(self.encode(x_BSD).value)

    @torch.no_grad()
    def update_threshold(self, least_G: Float[Tensor, " G"]) -> None:
        """Move batchtopk's threshold towards the smallest selected value of a training batch.

        The plain mean over the first 1,000 batches, an exponential average afterwards; a gate that
        selected nothing, for which the value is infinite, is left as it is.
        """
        some_G = least_G.isfinite()
        self.threshold_batches += some_G
        share_G = (1 / self.threshold_batches.clamp(min=1)).clamp(min=1 - THRESHOLD_DECAY)
        moved_G = self.inference_threshold.lerp(least_G, share_G.to(least_G.dtype))
        self.inference_threshold.copy_(torch.where(some_G, moved_G, self.inference_threshold))

    def _is_open(self, u_BFG: Float[Tensor, "B F G"]) -> Bool[Tensor, "B F G"]:
        k = self.config.k
        if k is None:
            return u_BFG > 0
        if self.config.activation == "topk":
            return largest_per_token(u_BFG, k)
        return largest_per_batch(u_BFG, k) if self.training else u_BFG > self.gate_thresholds()

    def gate_thresholds(self) -> Float[Tensor, "F_or_one G"]:
        """Return what z times `gate_norms` is compared with outside of selection by rank.

        Raises
        ------
        ValueError
            If a "batchtopk" crosscoder has seen no training batch.
        """
        if self.log_threshold is not None:
            return self.log_threshold.exp()[:, None]
        if self.config.activation == "batchtopk" and not bool((self.threshold_batches > 0).all()):
            raise ValueError(
                "the batchtopk threshold is unknown before training; train, or call .train() to "
                "select within the batch"
            )
        return self.inference_threshold[None]

    def check_whole(self) -> None:
        """Raise a ValueError if this holds a part of the features only."""
        rank, processes = self.part
        if processes > 1:
            raise ValueError(
                f"this is part {rank} of {processes} of a crosscoder, whose codes depend on the "
                "others; join_crosscoders makes a whole of saved parts"
            )

    def check_shape(self, x_BSD: Tensor) -> None:
        """Raise a ValueError unless activations have shape (B, S, D)."""
        expected = (len(self.config.steps), self.config.d_model)
        if tuple(x_BSD.shape[1:]) != expected:
            raise ValueError(
                f"activations have shape {tuple(x_BSD.shape)}, expected (tokens, snapshots, width) "
                f"= (any, {expected[0]}, {expected[1]})"
            )


def rows_of(config: CrosscoderConfig, part: tuple[int, int]) -> slice:
    """Return the features of a part, (rank, processes).

    Raises
    ------
    ValueError
        If there is no such part, or features cannot be cut evenly.
    """
    rank, processes = part
    if not 0 <= rank < processes:
        raise ValueError(f"part is {part}; give (rank, processes) with 0 <= rank < processes")
    size = config.n_features // processes
    if size * processes != config.n_features:
        raise ValueError(
            f"{config.n_features} features cannot be cut evenly over {processes} processes; take "
            f"{(size + 1) * processes}"
        )
    return slice(rank * size, (rank + 1) * size)
