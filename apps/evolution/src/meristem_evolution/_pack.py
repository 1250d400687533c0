"""Arrays as one compact text: typed arrays end to end, deflated, in base64, with a table of them.

The page reads them back without a copy: every array begins at a multiple of 8 bytes.
"""

import base64
import json
import zlib
from collections.abc import Mapping

import numpy as np

from meristem_evolution._explorer import KINDS, Explorer, Features

TYPES = {"uint8": "Uint8", "int8": "Int8", "uint16": "Uint16", "int16": "Int16", "int32": "Int32",
         "uint32": "Uint32", "float32": "Float32"}  # fmt: skip
ALIGNMENT = 8
LEVEL = 6  # of deflate; 9 takes three times as long for one per cent


def pack(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, list[object]], str]:
    """Return the table (type, offset, length of each array) and the base64 text of all arrays."""
    table: dict[str, list[object]] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data = little.tobytes()
        table[name] = [TYPES[array.dtype.name], offset, array.size]
        padding = -len(data) % ALIGNMENT
        parts += [data, bytes(padding)]
        offset += len(data) + padding
    return table, base64.b64encode(zlib.compress(b"".join(parts), LEVEL)).decode("ascii")


def pack_explorer(explorer: Explorer) -> tuple[str, str]:
    """Return the JSON header, safe inside a script element, and the packed arrays."""
    features = explorer.features
    table, data = pack(_arrays(features, explorer.rotation))
    contexts = features.contexts.tokens.shape[1:]
    header = {
        "steps": list(explorer.steps),
        "kinds": KINDS,
        "turning": explorer.turning,
        "features": len(features.kind),
        "contexts": contexts[0],
        "width": contexts[1],
        "neighbours": features.neighbours.shape[1],
        "columns": [[column.name, column.note] for column in features.columns],
        "arrays": table,
    }
    text = json.dumps(header, separators=(",", ":"))
    return text.replace("<", "\\u003c"), data


def _arrays(features: Features, rotation: np.ndarray) -> dict[str, np.ndarray]:
    contexts = features.contexts
    words = contexts.vocabulary
    small = len(words) < np.iinfo(np.uint16).max  # one id more stands for nothing
    tokens = np.where(contexts.tokens < 0, len(words), contexts.tokens)
    strength, scale = _bytes(contexts.activation)
    upper = np.triu_indices(features.norms.shape[1], 1)
    named = {
        "norms": features.norms.astype(np.float32),
        "threshold": features.threshold.astype(np.float32),
        "kind": features.kind.astype(np.uint8),
        "emergence": features.emergence.astype(np.int16),
        "peak": features.peak.astype(np.int16),
        "lifetime": features.lifetime.astype(np.float32),
        "frequency": features.frequency.astype(np.float32),
        "dimensionality": features.dimensionality.astype(np.float32),
        "turn": features.turn().astype(np.float32),
        "cosines": np.rint(features.cosines[:, *upper] * 127).astype(np.int8),
        "rotation": rotation.astype(np.float32),
        "neighbours": features.neighbours.astype(np.int32),
        "similarity": features.similarity.astype(np.float32),
        "tokens": tokens.astype(np.uint16 if small else np.uint32),
        "strength": strength,
        "scale": scale,
        "words": np.frombuffer(b"".join(words), np.uint8),
        "ends": np.cumsum([len(word) for word in words]).astype(np.uint32),
    }
    extra = {
        f"column{place}": column.values.astype(np.float32)
        for place, column in enumerate(features.columns)
    }
    return named | extra


def _bytes(activation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return activations in 255 parts of each feature's largest, and that largest.

    What is above 0 stays above 0: a token that fires is never shown as silent.
    """
    scale = activation.max((1, 2), initial=0.0)
    share = activation / np.where(scale > 0, scale, 1)[:, None, None]
    parts = np.ceil(share * 255 - 0.5)
    parts = np.where(activation > 0, np.maximum(parts, 1), 0)
    return parts.astype(np.uint8), scale.astype(np.float32)
