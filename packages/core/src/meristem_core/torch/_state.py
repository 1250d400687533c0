"""Optimiser and generator states as one safetensors file, bit by bit and without pickle.

- the file's metadata holds the structure as JSON: one tagged node per container or value
- a tensor is stored under its number in the order of the structure, with a CRC-32 of its bytes
- a dtype that an old safetensors may not know is stored as its bytes
- tensors that are one view of one storage are stored once and are one tensor after loading
"""

import json
import math
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] untyped path
from torch import Tensor

from meristem_core._files import replacing

FORMAT = "meristem-state-1"  # the metadata key under which the structure lies
NATIVE = {  # safetensors has always had these
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}
TYPES = {str(t): t for t in vars(torch).values() if isinstance(t, torch.dtype)}

Node = Any  # None, bool, int, float, str, or an object whose one key says what it stands for


def save_state(path: Path | str, state: Mapping[Any, Any]) -> None:
    """Write nested containers of tensors and plain values to one safetensors file, atomically.

    Parameters
    ----------
    path
        The file to write or replace.
    state
        Mappings with string or integer keys, lists, tuples, dense tensors of any dtype, numbers
        (infinities and NaN included), strings, booleans and None: ``optimizer.state_dict()``,
        ``{"generator": generator.get_state()}``.

    Raises
    ------
    TypeError
        If a value, key or tensor is of another kind; names its place.
    OSError
        If the file cannot be written; the old one is unchanged.

    Notes
    -----
    Tensors are detached and moved to the CPU. Views that share part of a storage are stored one
    by one; only views equal in offset, shape and stride are tied again by `load_state`.
    """
    encoder = _Encoder()
    metadata = {FORMAT: json.dumps(encoder.node(state, "state"))}
    with replacing(path) as temporary:
        try:
            save_file(encoder.tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            number = int(code.group(1))
            raise OSError(number, os.strerror(number)) from error


def load_state(path: Path | str) -> dict[Any, Any]:
    """Return what `save_state` wrote: mappings as dicts, tensors on the CPU.

    Raises
    ------
    ValueError
        If the file is cut short, changed, or not written by `save_state`.
    OSError
        If the file is missing or cannot be read.
    """
    try:
        with cast("Any", safe_open)(path, framework="pt") as file:  # it has no types
            metadata = cast("dict[str, str]", file.metadata() or {})
            if FORMAT not in metadata:
                raise ValueError(f"{path} was not written by save_state; give a file that was")
            names: list[str] = list(file.keys())
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        return _Decoder(tensors).value(json.loads(metadata[FORMAT]))
    except (SafetensorError, _DamageError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); use an older checkpoint, or delete it and start anew"
        ) from error


class _DamageError(Exception):
    """Tensor bytes or a structure that are not those that were saved."""


class _Encoder:
    """Collects the tensors of a structure while it becomes JSON."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[tuple[Any, ...], Node] = {}
        self._storages: set[int] = set()  # safetensors refuses two tensors of one storage

    def node(self, value: object, place: str) -> Node:
        """Return the JSON that stands for `value`."""
        match value:
            case Tensor():
                return self._tensor(value, place)
            case None | bool() | str():
                return value
            case int():
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else {"float": str(float(value))}
            case Mapping():
                items = cast("Mapping[object, object]", value).items()
                return {
                    "dict": [[_key(k, place), self.node(v, f"{place}[{k!r}]")] for k, v in items]
                }
            case _ if type(value) in (list, tuple):
                items = enumerate(cast("list[object]", value))
                kind = type(value).__name__
                return {kind: [self.node(v, f"{place}[{i}]") for i, v in items]}
            case _:
                raise TypeError(
                    f"{place} is of type {type(value).__name__}; a state holds tensors, numbers, "
                    "strings, booleans, None, lists, tuples and mappings, so convert it"
                )

    def _tensor(self, value: Tensor, place: str) -> Node:
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise TypeError(
                f"{place} is a tensor of layout {value.layout}, dtype {value.dtype} on "
                f"{value.device}; a state holds dense tensors with data, so convert it"
            )
        view = _view(value)
        if value.numel() and view in self._known:
            return self._known[view]
        stored = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if stored.untyped_storage().data_ptr() in self._storages:
            stored = stored.clone()
        self._storages.add(stored.untyped_storage().data_ptr())
        name, data = str(len(self.tensors)), _bytes(stored)
        self.tensors[name] = stored if stored.dtype in NATIVE else data
        node = {"tensor": [name, str(stored.dtype), list(stored.shape), _crc(data)]}
        self._known[view] = node
        return node


class _Decoder:
    """Turns the JSON of a structure and its tensors back into the state."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._known: dict[str, Tensor] = {}

    def value(self, node: Node) -> Any:
        """Return what `node` stands for."""
        match node:
            case {"dict": pairs}:
                return {key: self.value(item) for key, item in pairs}
            case {"list": items}:
                return [self.value(item) for item in items]
            case {"tuple": items}:
                return tuple(self.value(item) for item in items)
            case {"float": text}:
                return float(text)
            case {"tensor": [name, dtype, shape, crc]}:
                if name not in self._known:
                    self._known[name] = self._tensor(name, dtype, shape, crc)
                return self._known[name]
            case _:
                return node

    def _tensor(self, name: str, dtype: str, shape: list[int], crc: int) -> Tensor:
        if name not in self._tensors:
            raise _DamageError(f"tensor {name} is missing")
        data = _bytes(self._tensors[name])
        if _crc(data) != crc:
            raise _DamageError(f"tensor {name} has CRC-32 {_crc(data)}, not the saved {crc}")
        return data.view(TYPES[dtype]).reshape(shape)


def _view(value: Tensor) -> tuple[Any, ...]:
    """Return what two tensors have in common exactly if they are one view of one storage."""
    address, offset = value.untyped_storage().data_ptr(), value.storage_offset()
    place = (value.device, address, offset, value.shape, value.stride())
    return (*place, value.dtype, value.is_conj(), value.is_neg())


def _bytes(value: Tensor) -> Tensor:
    """Return the bytes of a contiguous tensor, sharing its storage."""
    return value.reshape(-1).view(torch.uint8)


def _crc(data: Tensor) -> int:
    return zlib.crc32(memoryview(cast("Any", data.numpy())))


def _key(key: object, place: str) -> str | int:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    raise TypeError(
        f"key {key!r} of {place} is of type {type(key).__name__}; keys are strings or integers, "
        "so convert it"
    )
