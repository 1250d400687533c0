"""One step's loss and gradients, by the cheaper of two exact ways.

Shape letters: B tokens, F features, S snapshots, D width, G gates per feature.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_crosscoders._auxiliary import Auxiliary, auxiliary
from meristem_crosscoders._entries import Coarse, OpenCodes
from meristem_crosscoders._gradients import Gradients, SparseStep, Terms, Window
from meristem_crosscoders._mesh import Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._products import rows_product
from meristem_crosscoders._select import above, ranked
from meristem_crosscoders._tiles import TiledStep

DENSE = 0.08  # share of (token, feature) pairs from which tiles are cheaper than lists


@torch.no_grad()
def step_gradients(
    crosscoder: Crosscoder,
    x_BSD: Float[Tensor, "B S D"],
    terms: Terms,
    *,
    coarse: Coarse | None = None,
    mesh: Mesh = Mesh(),  # noqa: B008 frozen
    dense: float = DENSE,
) -> Gradients:
    """Return loss and gradients of a batch, equal to those of automatic differentiation.

    Parameters
    ----------
    crosscoder
        In training mode; under a mesh of features it holds this process's part of them.
    x_BSD
        Normalised activations; under a mesh of data this process's part of the batch.
    terms
        Regularisers and their weights at this step.
    coarse
        The encoder in bfloat16, for selection by rank.
    mesh
        Over which processes the batch or the features are cut.
    dense
        Share of open pairs from which tiles are used instead of lists.
    """
    batch = len(x_BSD) if mesh.data.size == 1 else int(mesh.data.sum(torch.tensor(len(x_BSD))))
    norms_FS = crosscoder.norms()
    gates_FG = crosscoder.gate_norms(norms_FS)

    def dead(error: Callable[[], Tensor]) -> Auxiliary | None:
        if terms.auxk <= 0 or terms.dead_F is None:
            return None
        return auxiliary(
            crosscoder, x_BSD, error, terms.dead_F, weight=terms.auxk, batch=batch, mesh=mesh
        )

    def lists(entries: OpenCodes, **more: object) -> Gradients:
        return SparseStep(
            crosscoder=crosscoder, x_BSD=x_BSD, entries=entries, norms_FS=norms_FS,
            gate_norms_FG=gates_FG, terms=terms, batch=batch, mesh=mesh, **more,  # pyright: ignore[reportArgumentType]
        ).gradients(dead)  # fmt: skip

    x_BE = crosscoder.encoded(x_BSD)
    if crosscoder.config.k is not None:
        return lists(ranked(crosscoder, x_BE, gates_FG, batch=batch, coarse=coarse, mesh=mesh))
    z_BF = rows_product(x_BE, crosscoder.W_enc.flatten(1), crosscoder.b_enc)
    threshold_F, window = torch.zeros_like(crosscoder.b_enc), None
    if crosscoder.log_threshold is not None:
        threshold_F = crosscoder.log_threshold.exp()
        window = Window(threshold_F=threshold_F, width=crosscoder.config.ste_width)
    near = None if window is None else window.near()
    cohort = mesh.data if mesh.data.size > 1 else mesh.features
    share = float(cohort.sum(_share(z_BF, gates_FG, threshold_F, near))) / cohort.size
    if terms.preactivation <= 0 and share < dense:
        return lists(above(z_BF, gates_FG, threshold_F[:, None], near), z_BF=z_BF, window=window)
    return TiledStep(
        crosscoder=crosscoder, x_BSD=x_BSD, z_BF=z_BF, norms_FS=norms_FS, gate_norms_FG=gates_FG,
        threshold_F=threshold_F, terms=terms, batch=batch, mesh=mesh,
    ).gradients(dead)  # fmt: skip


def _share(
    z_BF: Tensor, norms_FG: Tensor, threshold_F: Tensor, near_F1: Tensor | None
) -> Float[Tensor, ""]:
    """Return an estimate of the share of pairs that would be listed."""
    largest_F = norms_FG.amax(1)
    least_F = threshold_F if near_F1 is None else torch.minimum(threshold_F, near_F1[:, 0])
    sample = z_BF[:: max(1, len(z_BF) // 64)]
    return (sample * largest_F > least_F).float().mean()
