"""Arrays of an unfinished fit in a file, so that a killed fit goes on where it was.

- the file also holds a digest of data and settings: a checkpoint of another fit is refused
- written under another name and renamed, so that a kill never leaves a torn file
- searches are deterministic, so that known evaluations make a resumed fit bit-equal to a whole one
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meristem_rasch._errors import DataError

EVERY = 1.0  # seconds between two writes

Vector = Float[np.ndarray, " P"]
Evaluate = Callable[[Vector], tuple[float, Vector]]


class Checkpoint:
    """Named arrays in one file, tied to the fit that `parts` describes."""

    def __init__(self, path: Path | str, settings: object, parts: Iterable[np.ndarray]) -> None:
        self.path, self.digest, self.written = Path(path), _digest(settings, parts), -np.inf
        self.arrays: dict[str, np.ndarray] = {}
        if self.path.exists():
            self.arrays = self._read()

    def _read(self) -> dict[str, np.ndarray]:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            same = str(arrays.pop("digest")) == self.digest
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise DataError(f"{self.path} is no checkpoint of a fit; give another path") from error
        if not same:
            raise DataError(
                f"checkpoint {self.path} is of other data or settings; delete it or give another "
                "path"
            )
        return arrays

    def save(self, **arrays: np.ndarray) -> None:
        """Keep the arrays, and write all at most once a second."""
        self.arrays |= arrays
        if time.monotonic() - self.written < EVERY:
            return
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        with temporary.open("wb") as file:
            np.savez(file, digest=np.array(self.digest), **self.arrays)  # pyright: ignore[reportArgumentType]
        temporary.replace(self.path)
        self.written = time.monotonic()

    def remembered(self, evaluate: Evaluate, label: str) -> Evaluate:
        """Return the function, its values taken from the file where they are known.

        Parameters
        ----------
        label
            Tells the functions of one fit apart.
        """

        def known(x: Vector) -> tuple[float, Vector]:
            key = hashlib.sha256(label.encode() + x.tobytes()).hexdigest()
            if key not in self.arrays:
                value, gradient = evaluate(x)
                self.save(**{key: np.append(value, gradient)})
            return float(self.arrays[key][0]), self.arrays[key][1:]

        return known


def _digest(settings: object, parts: Iterable[np.ndarray]) -> str:
    out = hashlib.sha256()
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        out.update(repr(settings).encode())
    for part in parts:
        out.update(str((part.dtype, part.shape)).encode() + np.ascontiguousarray(part).tobytes())
    return out.hexdigest()
