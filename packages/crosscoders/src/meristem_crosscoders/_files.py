"""A crosscoder as one safetensors file, its configuration in the metadata."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from meristem_core import write_atomic
from meristem_crosscoders._config import CrosscoderConfig
from meristem_crosscoders._model import Crosscoder

FORMAT = "meristem-crosscoder-1"  # the metadata key under which the configuration lies


def save_crosscoder(crosscoder: Crosscoder, path: Path | str) -> None:
    """Write a crosscoder to one file, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written; an old one is unchanged.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in crosscoder.state_dict().items()}
    metadata = {FORMAT: json.dumps(asdict(crosscoder.config))}
    write_atomic(path, save(tensors, metadata=metadata))


def load_crosscoder(path: Path | str) -> Crosscoder:
    """Return the crosscoder in a file: on the CPU, in its dtype, in evaluation mode.

    Raises
    ------
    ValueError
        If the file is damaged or was not written by `save_crosscoder`.
    OSError
        If the file is missing or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); save it again") from error
    if FORMAT not in metadata:
        raise ValueError(f"{path} holds no crosscoder; give a file that save_crosscoder wrote")
    plain = json.loads(metadata[FORMAT])
    fields: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()
    }
    crosscoder = Crosscoder(CrosscoderConfig(**fields))
    crosscoder.to(tensors["W_dec"].dtype)
    crosscoder.load_state_dict(tensors)
    return crosscoder.eval()
