"""What a run needs, and what the machine has."""

import torch

from meristem_core import free_memory
from meristem_crosscoders._config import CrosscoderConfig


def weight_bytes(config: CrosscoderConfig) -> int:
    """Return the size of a crosscoder's parameters in float32."""
    F, D, S = config.n_features, config.d_model, len(config.steps)
    return 4 * (F * D * (S + len(config.encoded)) + 2 * F + S * D)


def training_bytes(config: CrosscoderConfig, batch: int, processes: int = 1) -> int:
    """Return what training adds to the parameters: moments, pre-activations and activations."""
    F, D, S = config.n_features // processes, config.d_model, len(config.steps)
    return 2 * weight_bytes(config) // processes + 4 * batch * (3 * F + 4 * S * D)


def check_memory(
    config: CrosscoderConfig, *, batch_tokens: int, device: str | torch.device = "cpu"
) -> None:
    """Raise a ValueError, which says the need, if a crosscoder cannot be trained in free memory.

    Parameters
    ----------
    config
        The crosscoder; it is not made.
    batch_tokens
        Tokens of a step.
    device
        Where it would be trained, by one process.

    Notes
    -----
    Parameters, moments and one step are counted; models and windows of activations are not.
    """
    needed = weight_bytes(config) + training_bytes(config, batch_tokens)
    require(needed, "training", torch.device(device))


def require(needed: int, what: str, device: torch.device) -> None:
    """Raise a ValueError if memory of the machine, or of the device, is too small.

    Nothing is checked where the system does not say what it has.
    """
    free = _free(device)
    if free is not None and needed > free:
        raise ValueError(
            f"{what} needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; take fewer "
            "features or snapshots, or cut the features over more processes"
        )


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()
