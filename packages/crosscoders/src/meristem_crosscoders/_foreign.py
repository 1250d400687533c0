"""Crosscoders of two other libraries, read and written.

- Llamascopium (OpenMOSS/Language-Model-SAEs, as of 2.0.0b34): a folder with `config.json` and
  `sae_weights.safetensors`; its gate is our "snapshot" gate
- crosscoder_learning (science-of-finetuning): a state dict that torch.save wrote; "decoupled" is
  our "snapshot" gate, its other code norms are our "shared" gate

What the other library would compute otherwise is refused, not approximated.
"""

import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from meristem_core import read_json
from meristem_crosscoders._config import CodeNorm, CrosscoderConfig
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._normalisation import Normalisation

WEIGHTS = "sae_weights.safetensors"
NORM, THRESHOLD = "dataset_average_activation_norm.", "activation_function.log_jumprelu_threshold"
CODE_NORMS: dict[int, CodeNorm] = {1: "sum", 2: "l2", 4: "none"}
DECOUPLED = 5
OWN_SCALES = ("activation_mean", "activation_std", "activation_global_scale", "target_rms")


def read_llamascopium(
    folder: Path | str, steps: tuple[int, ...]
) -> tuple[Crosscoder, Normalisation]:
    """Return the crosscoder in a folder, and the normalisation of its activations.

    Parameters
    ----------
    folder
        Where `config.json` and `sae_weights.safetensors` lie.
    steps
        Training steps of its heads, in their order, increasing.

    Raises
    ------
    ValueError
        If it is no crosscoder, has another number of heads, or an activation, normalisation or
        threshold that has no equal here.
    OSError
        If a file is missing.
    """
    plain = cast("dict[str, Any]", read_json(Path(folder) / "config.json"))
    weights = _tensors(Path(folder) / WEIGHTS)
    kind, hooks = plain.get("act_fn", "relu"), plain.get("hook_points", [])
    if plain.get("sae_type") != "crosscoder" or kind not in ("relu", "jumprelu", "topk"):
        raise ValueError(
            f"{folder} is a {plain.get('sae_type')!r} with {kind!r}; "
            "crosscoders with relu, jumprelu or topk can be read"
        )
    _check_heads(folder, len(hooks), steps)
    config = CrosscoderConfig(
        d_model=weights["W_D"].shape[2],
        n_features=weights["W_D"].shape[1],
        steps=steps,
        activation=kind,
        k=plain["top_k"] if kind == "topk" else None,
        ste_width=float(plain.get("jumprelu_threshold_window", 2.0)),
    )
    rows = {
        "W_enc": weights["W_E"].permute(2, 0, 1),
        "W_dec": weights["W_D"].permute(1, 0, 2),
        "b_enc": weights["b_E"].sum(0),
        "b_dec": weights["b_D"],
    }
    if kind == "jumprelu":
        rows["log_threshold"] = _one_threshold(weights[THRESHOLD])
    scale = _scale(folder, plain.get("norm_activation", "dataset-wise"), weights, hooks)
    return _filled(config, rows), Normalisation(
        scale=scale, mean=torch.zeros_like(weights["b_D"], dtype=scale.dtype)
    )


def write_llamascopium(
    crosscoder: Crosscoder,
    folder: Path | str,
    normalisation: Normalisation,
    hook_points: tuple[str, ...],
) -> None:
    """Write a crosscoder as Llamascopium does; the shared bias goes to the first head.

    Parameters
    ----------
    crosscoder
        As trained, not folded.
    folder
        Made if missing.
    normalisation
        Of its activations; Llamascopium subtracts no mean.
    hook_points
        The name of each snapshot's activation there.

    Raises
    ------
    ValueError
        If Llamascopium has no such crosscoder.
    """
    config = crosscoder.config
    _check_plain(crosscoder)
    _check_heads(folder, len(hook_points), config.steps)
    if config.gate != "snapshot" or config.activation == "batchtopk" or normalisation.mean.any():
        raise ValueError(
            f"Llamascopium has no {config.activation!r} with a {config.gate!r} gate and a mean; "
            'it has relu, jumprelu and topk with gate="snapshot", without a mean'
        )
    F, D = config.n_features, config.d_model
    bias = torch.zeros(len(config.steps), F, dtype=crosscoder.b_enc.dtype)
    bias[0] = crosscoder.b_enc.detach()
    weights = {
        "W_E": crosscoder.W_enc.detach().permute(1, 2, 0),
        "W_D": crosscoder.W_dec.detach().permute(1, 0, 2),
        "b_E": bias,
        "b_D": crosscoder.b_dec.detach(),
    }
    if crosscoder.log_threshold is not None:
        weights[THRESHOLD] = crosscoder.log_threshold.detach()
    for hook, scale in zip(hook_points, normalisation.scale, strict=True):
        weights[NORM + hook] = math.sqrt(D) / scale.to(bias.dtype)
    expansion = F / D
    while int(D * expansion) < F:  # it rounds down what it multiplies
        expansion = math.nextafter(expansion, math.inf)
    plain = {
        "sae_type": "crosscoder",
        "hook_points": list(hook_points),
        "d_model": D,
        "expansion_factor": expansion,
        "act_fn": config.activation,
        "norm_activation": "dataset-wise",
        "jumprelu_threshold_window": config.ste_width,
        "top_k": config.k or 1,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file({name: each.contiguous() for name, each in weights.items()}, Path(folder) / WEIGHTS)
    (Path(folder) / "config.json").write_text(json.dumps(plain, indent=2), encoding="utf-8")


def read_crosscoder_learning(path: Path | str, steps: tuple[int, ...]) -> Crosscoder:
    """Return the crosscoder in a state dict of crosscoder_learning.

    Parameters
    ----------
    path
        What torch.save wrote, of a `CrossCoder` or a `BatchTopKCrossCoder`.
    steps
        Training steps of its layers, in their order, increasing.

    Raises
    ------
    ValueError
        If it is no crosscoder, has another number of layers, the "mixed" code norm, an encoder of
        some layers or a normalisation of its own.
    OSError
        If the file is missing.
    """
    weights = torch.load(path, map_location="cpu", weights_only=True)
    if not {"encoder.weight", "decoder.weight"} <= weights.keys():
        raise ValueError(f"{path} holds {sorted(weights)[:4]} and no crosscoder; give another file")
    own = [name for name in OWN_SCALES if name in weights]
    if own:
        raise ValueError(
            f"{path} scales its activations itself ({', '.join(own)}); fold that first"
        )
    S, F, D = weights["decoder.weight"].shape
    _check_heads(path, S, steps)
    _check_heads(path, len(weights["encoder.weight"]), steps)
    selects, norm = "k" in weights, int(weights.get("code_normalization_id", torch.tensor(1)))
    if norm != DECOUPLED and norm not in CODE_NORMS:
        raise ValueError(f"{path} has code normalisation {norm} (mixed), which has no equal here")
    snapshot = selects and norm == DECOUPLED
    config = CrosscoderConfig(
        d_model=D,
        n_features=F,
        steps=steps,
        activation="batchtopk" if selects else "relu",
        k=int(weights["k"]) if selects else None,
        gate="snapshot" if snapshot else "shared",
        code_norm=CODE_NORMS.get(norm, "none") if selects else "none",
    )
    rows = {
        "W_enc": weights["encoder.weight"].permute(2, 0, 1),
        "W_dec": weights["decoder.weight"].permute(1, 0, 2),
        "b_enc": weights["encoder.bias"],
        "b_dec": weights["decoder.bias"],
    }
    crosscoder = _filled(config, rows)
    if selects:
        threshold = weights["threshold"].reshape(-1)
        crosscoder.threshold_batches.copy_(threshold >= 0)
        crosscoder.inference_threshold.copy_(threshold.clamp(min=0))
    return crosscoder


def write_crosscoder_learning(crosscoder: Crosscoder, path: Path | str) -> None:
    """Write a crosscoder as a state dict of crosscoder_learning.

    Raises
    ------
    ValueError
        If crosscoder_learning has no such crosscoder: it has "relu" and "batchtopk".
    """
    config = crosscoder.config
    _check_plain(crosscoder)
    if config.activation not in ("relu", "batchtopk"):
        raise ValueError(
            f"crosscoder_learning has no {config.activation!r}; it has relu and batchtopk"
        )
    norm = {name: number for number, name in CODE_NORMS.items()}[config.code_norm]
    weights = {
        "encoder.weight": crosscoder.W_enc.detach().permute(1, 2, 0).contiguous(),
        "encoder.bias": crosscoder.b_enc.detach().clone(),
        "decoder.weight": crosscoder.W_dec.detach().permute(1, 0, 2).contiguous(),
        "decoder.bias": crosscoder.b_dec.detach().clone(),
        "code_normalization_id": torch.tensor(DECOUPLED if config.gate == "snapshot" else norm),
    }
    if config.activation == "batchtopk":
        known = crosscoder.threshold_batches > 0
        threshold = torch.where(known, crosscoder.inference_threshold, -1.0)
        weights["k"] = torch.tensor(config.k, dtype=torch.int)
        weights["threshold"] = threshold if config.gate == "snapshot" else threshold[0]
    torch.save(weights, path)


def _filled(config: CrosscoderConfig, rows: dict[str, Tensor]) -> Crosscoder:
    crosscoder = Crosscoder(config).to(rows["W_dec"].dtype)
    crosscoder.load_state_dict(rows, strict=False)
    return crosscoder.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from error


def _one_threshold(log_threshold: Tensor) -> Tensor:
    """Return the threshold of each feature if it is the same for all heads."""
    if log_threshold.ndim == 1:
        return log_threshold
    if not torch.equal(log_threshold, log_threshold[:1].expand_as(log_threshold)):
        raise ValueError("the thresholds differ over heads; here a feature has one for all")
    return log_threshold[0]


def _scale(folder: Path | str, kind: str, weights: dict[str, Tensor], hooks: list[str]) -> Tensor:
    if kind == "inference":
        return torch.ones(len(hooks))
    if kind != "dataset-wise" or any(NORM + hook not in weights for hook in hooks):
        raise ValueError(
            f"{folder} normalises {kind!r}; only 'dataset-wise', with its norms in the file, and "
            "'inference' are one scale per snapshot"
        )
    norms = torch.stack([weights[NORM + hook] for hook in hooks])
    return math.sqrt(weights["W_D"].shape[2]) / norms


def _check_heads(place: Path | str, heads: int, steps: tuple[int, ...]) -> None:
    if heads != len(steps):
        raise ValueError(f"{place} has {heads} heads but {len(steps)} steps are given: {steps}")


def _check_plain(crosscoder: Crosscoder) -> None:
    config = crosscoder.config
    if config.raw or config.encode_from is not None:
        raise ValueError(
            "a folded crosscoder, or one that encodes some snapshots, has no equal elsewhere; "
            "write the one that was trained, before folding"
        )
