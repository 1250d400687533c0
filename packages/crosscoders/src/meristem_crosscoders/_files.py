"""A crosscoder as one safetensors file, its configuration in the metadata."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from meristem_core import write_atomic
from meristem_crosscoders._config import CrosscoderConfig
from meristem_crosscoders._model import Crosscoder

FORMAT = "meristem-crosscoder-1"  # the only metadata key: safetensors writes several in any order
BY_FEATURE = ("W_enc", "W_dec", "b_enc", "log_threshold")  # have a row per feature


def save_crosscoder(crosscoder: Crosscoder, path: Path | str) -> None:
    """Write a crosscoder, or the part that it is, to one file, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written; an old one is unchanged.
    """
    save_part(path, crosscoder.config, crosscoder.part, crosscoder.state_dict())


def save_part(
    path: Path | str, config: CrosscoderConfig, part: tuple[int, int], tensors: dict[str, Tensor]
) -> None:
    """Write the tensors of a part, (rank, processes)."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    description = json.dumps({**asdict(config), "part": part})
    write_atomic(path, save(plain, metadata={FORMAT: description}))


def load_crosscoder(path: Path | str) -> Crosscoder:
    """Return the crosscoder, or the part, in a file: on the CPU, in its dtype, in evaluation mode.

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
    part = fields.pop("part", (0, 1))
    crosscoder = Crosscoder(CrosscoderConfig(**fields), part=part)
    crosscoder.to(tensors["W_dec"].dtype)
    crosscoder.load_state_dict(tensors)
    return crosscoder.eval()


def join_crosscoders(paths: Iterable[Path | str]) -> Crosscoder:
    """Return the whole of parts that the processes of one training have saved.

    Raises
    ------
    ValueError
        If a part is missing, there twice, or of another crosscoder.
    """
    parts = sorted((load_crosscoder(path) for path in paths), key=lambda each: each.part)
    if not parts or [each.part for each in parts] != [(r, len(parts)) for r in range(len(parts))]:
        raise ValueError(
            f"parts {[each.part for each in parts]} (rank, processes) make no whole; give each once"
        )
    first = parts[0]
    if any(each.config != first.config for each in parts):
        raise ValueError("the parts have different configurations; give those of one training")
    tensors = first.state_dict()
    for name in BY_FEATURE:
        if name in tensors:
            tensors[name] = torch.cat([each.state_dict()[name] for each in parts])
    whole = Crosscoder(first.config).to(first.W_dec.dtype)
    whole.load_state_dict(tensors)
    return whole.eval()
