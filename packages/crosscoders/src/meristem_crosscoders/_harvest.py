"""Activations of all snapshots as a stream of shuffled batches; nothing lies on disk.

- the kept tokens of all sequences, in an order drawn for each epoch, are cut into windows
- a window is harvested whole and permuted; batches are its slices
- while one window is used a thread harvests the next, so two are in memory
- window and batch are functions of the step alone: resuming needs no buffer and no generator

Shape letters: N sequences, T positions, B tokens, S snapshots, D width.
"""

import math
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from threading import Event

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from meristem_core import digest, stream
from meristem_crosscoders._normalisation import Normalisation, estimate_normalisation
from meristem_crosscoders._snapshots import SnapshotSet

COUNTED_ROWS = 4096  # sequences whose kept tokens are counted at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationBatch:
    """Activations and where they come from."""

    x: Float[Tensor, "B S D"]
    sequence: Int[np.ndarray, " B"]  # row of the tokens
    offset: Int[np.ndarray, " B"]  # position in that row


class Harvest:
    """Batches of activations of all snapshots, as a function of the step.

    Parameters
    ----------
    snapshots
        The models and the site.
    tokens
        Sequences of one length that the models read whole; may be memory-mapped.
    batch_tokens
        Tokens of a batch; the last batch of all holds the rest.
    window_tokens
        Tokens that are shuffled together, a multiple of `batch_tokens`. Two windows are in memory:
        `window_bytes` each.
    epochs
        How often each kept token is used.
    seed
        Of the orders of sequences and of tokens within windows.
    drop_ids
        Ids such as the beginning of a text: models see them, the stream does not hold them.
    drop_first
        How many first positions of each sequence to leave out; attention gives the very first one
        a norm of its own.
    mask
        True at tokens, False at padding, which must follow the tokens of its sequence, where no
        causal model can see it.
    normalisation
        Applied to every batch; None gives raw activations.
    dtype
        Of the window; bfloat16 halves it. Batches are float32.
    part
        This process's number and how many share the sequences, each with batches of its own.

    Raises
    ------
    ValueError
        If a number is out of range, padding comes before a token, or no token is kept.

    Notes
    -----
    Window w holds the kept tokens [w Wn, (w + 1) Wn) of the epochs laid end to end. A sequence that
    crosses an edge is read for both windows.
    """

    def __init__(
        self,
        snapshots: SnapshotSet,
        tokens: Integer[np.ndarray, "N T"],
        *,
        batch_tokens: int = 2048,
        window_tokens: int = 65_536,
        epochs: int = 1,
        seed: int = 0,
        drop_ids: Collection[int] = (),
        drop_first: int = 0,
        mask: Bool[np.ndarray, "N T"] | None = None,
        normalisation: Normalisation | None = None,
        dtype: torch.dtype = torch.float32,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if not 0 <= part[0] < part[1]:
            raise ValueError(f"part {part} must be a number from 0 and the greater number of parts")
        _check_sizes(batch_tokens, window_tokens, epochs, drop_first)
        self.snapshots, self.tokens, self.mask = snapshots, tokens, mask
        self.batch_tokens, self.window_tokens, self.epochs = batch_tokens, window_tokens, epochs
        self.seed, self.drop_ids, self.drop_first = seed, tuple(sorted(drop_ids)), drop_first
        self.normalisation, self.dtype = normalisation, dtype
        _check_padding(mask)
        starts = range(0, len(tokens), COUNTED_ROWS)
        rows = [np.arange(s, min(s + COUNTED_ROWS, len(tokens))) for s in starts]
        counts = np.concatenate([self._keep(each).sum(1) for each in rows])
        self.part, self._rows = part, np.arange(part[0], len(tokens), part[1])
        self._counts = counts[self._rows]
        self._least = min(int(counts[each :: part[1]].sum()) for each in range(part[1]))
        if not self._least:
            raise ValueError("no token is kept; drop fewer ids or first positions, or give more")

    @property
    def epoch_tokens(self) -> int:
        """Kept tokens of one epoch in this part."""
        return int(self._counts.sum())

    @property
    def window_bytes(self) -> int:
        """Memory of one window; two of them exist during iteration."""
        n = min(self.window_tokens, self.epochs * self.epoch_tokens)
        return n * len(self.snapshots.steps) * self.snapshots.d_model * self.dtype.itemsize

    def __len__(self) -> int:
        """Return the number of batches of all epochs, in the part that has fewest."""
        return math.ceil(self.epochs * self._least / self.batch_tokens)

    def __call__(self, step: int = 0) -> Iterator[Float[Tensor, "B S D"]]:
        """Yield the batches from a step on, float32; what `train` takes as `batches`."""
        return (batch.x for batch in self.batches(step))

    def batches(self, step: int = 0) -> Iterator[ActivationBatch]:
        """Yield the batches from a step on, with the place of every token.

        Raises
        ------
        ValueError
            If `step` is negative, a token is outside of the vocabulary or an activation is not
            finite.
        """
        if step < 0:
            raise ValueError(f"step ({step}) must be at least 0; batches count from there")
        first, skip = divmod(step, self.window_tokens // self.batch_tokens)
        n_windows = math.ceil(self.epochs * self.epoch_tokens / self.window_tokens)
        return self._batches(range(first, n_windows), skip * self.batch_tokens)

    def normalised(self, normalisation: Normalisation | None) -> "Harvest":
        """Return the same stream with a normalisation applied to every batch, or with none."""
        other = object.__new__(Harvest)
        other.__dict__.update(self.__dict__, normalisation=normalisation)
        return other

    def estimate_normalisation(
        self, *, tokens: int = 65_536, center: bool = False
    ) -> Normalisation:
        """Return the normalisation of the first tokens of the stream, or of all if there are fewer.

        Raises
        ------
        ValueError
            As `estimate_normalisation`.
        """
        raw, found = self.normalised(None), []
        for batch in raw():
            found.append(batch)
            if sum(map(len, found)) >= tokens:
                break
        return estimate_normalisation(torch.cat(found)[:tokens], center=center)

    def identity(self) -> str:
        """Return a hash of what decides the batches: tokens, order, site, normalisation."""
        seen = blake2b(digest_size=16)
        for start in range(0, len(self.tokens), COUNTED_ROWS):
            rows = np.arange(start, min(start + COUNTED_ROWS, len(self.tokens)))
            seen.update(self.tokens[rows].astype("<i8").tobytes())
            seen.update(self._keep(rows).tobytes())
        return digest(
            {
                "tokens": [list(self.tokens.shape), seen.hexdigest()],
                "order": [self.batch_tokens, self.window_tokens, self.seed],
                "snapshots": [self.snapshots.steps, self.snapshots.site, str(self.dtype)],
            }
        )

    def _batches(self, windows: range, skip: int) -> Iterator[ActivationBatch]:
        threads, stop = torch.get_num_threads(), Event()  # a new thread has torch's default
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            try:
                futures = [pool.submit(self._window, w, stop) for w in windows[:1]]
                for w in windows:
                    window = futures.pop().result()
                    if w + 1 < windows.stop:
                        futures.append(pool.submit(self._window, w + 1, stop))
                    for start in range(skip, len(window.x), self.batch_tokens):
                        yield self._slice(window, slice(start, start + self.batch_tokens))
                    skip = 0
                    del window
            finally:
                stop.set()  # the pool waits for its thread

    def _slice(self, window: ActivationBatch, part: slice) -> ActivationBatch:
        x = window.x[part].float()
        if self.normalisation is not None:
            x = self.normalisation.apply(x)
        return ActivationBatch(x=x, sequence=window.sequence[part], offset=window.offset[part])

    def _window(self, index: int, stop: Event) -> ActivationBatch:
        """Harvest a window, permuted; give up when `stop` is set."""
        sequence, offset = self._places(index)
        order = stream(self.seed, "window", index).permutation(len(sequence))
        slot = torch.from_numpy(np.argsort(order))  # of each token, in the order of the stream
        edges = np.flatnonzero(np.diff(sequence, prepend=-1))
        row = np.searchsorted(edges, np.arange(len(sequence)), side="right") - 1
        taken = torch.from_numpy(np.asarray(self.tokens[sequence[edges]]).astype(np.int64))
        shape = len(sequence), len(self.snapshots.steps), self.snapshots.d_model
        x = torch.empty(shape, dtype=self.dtype)
        for rows, s, found in self.snapshots.chunks(taken):
            low, high = np.searchsorted(row, [rows.start, rows.stop])
            here = torch.from_numpy(row[low:high] - rows.start), torch.from_numpy(offset[low:high])
            x[slot[low:high], s] = found[here].to(self.dtype)
            if stop.is_set():
                break
        return ActivationBatch(x=x, sequence=sequence[order], offset=offset[order])

    def _places(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return sequence and offset of a window's tokens, in the order of the stream."""
        size = self.epoch_tokens
        low = window * self.window_tokens
        high = min(low + self.window_tokens, self.epochs * size)
        parts = [
            self._within(epoch, max(low - epoch * size, 0), min(high - epoch * size, size))
            for epoch in range(low // size, (high - 1) // size + 1)
        ]
        return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])

    def _within(self, epoch: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Return sequence and offset of the kept tokens [low, high) of an epoch."""
        order = stream(self.seed, "epoch", epoch).permutation(len(self._counts))
        ends = self._counts[order].cumsum()
        first, last = np.searchsorted(ends, low, "right"), np.searchsorted(ends, high, "left")
        rows = self._rows[order[first : last + 1]]
        row, offset = self._keep(rows).nonzero()
        skip = low - (ends[first] - self._counts[order[first]])
        part = slice(skip, skip + high - low)
        return rows[row][part], offset[part]

    def _keep(self, rows: np.ndarray) -> np.ndarray:
        """Return True at the kept tokens of some sequences."""
        keep = ~np.isin(self.tokens[rows], self.drop_ids)
        keep[:, : self.drop_first] = False
        return keep if self.mask is None else keep & self.mask[rows]


def _check_sizes(batch_tokens: int, window_tokens: int, epochs: int, drop_first: int) -> None:
    for name, value, least in (
        ("batch_tokens", batch_tokens, 1),
        ("epochs", epochs, 1),
        ("drop_first", drop_first, 0),
    ):
        if value < least:
            raise ValueError(f"{name} ({value}) must be at least {least}")
    if window_tokens < batch_tokens or window_tokens % batch_tokens:
        raise ValueError(
            f"window_tokens ({window_tokens}) must be a multiple of batch_tokens "
            f"({batch_tokens}); give {math.ceil(window_tokens / batch_tokens) * batch_tokens}"
        )


def _check_padding(mask: np.ndarray | None) -> None:
    if mask is None:
        return
    bad = np.flatnonzero((~mask[:, :-1] & mask[:, 1:]).any(1))
    if bad.size:
        raise ValueError(
            f"sequence {bad[0]} has a token after padding; pad on the right, where no token of a "
            "causal model sees it"
        )
