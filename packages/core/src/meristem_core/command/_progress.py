"""Progress on stderr: a bar on a terminal, a line every 30 seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

QUIET_SECONDS = 30.0  # between the lines of a stderr that is not a terminal


Progress = Callable[[int, int, Mapping[str, float]], None]  # done, total, what is measured


@contextmanager
def progress_bar(label: str) -> Generator[Progress, None, None]:
    """Show a job's progress with the time left, under a label."""
    if sys.stderr.isatty():
        with tqdm(desc=label, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:

            def draw(done: int, total: int, metrics: Mapping[str, float]) -> None:
                if bar.total is None:
                    bar.reset(total)
                    bar.initial = done - 1  # steps of an earlier session took no time in this one
                    bar.n = done - 1
                bar.set_postfix(
                    {name: f"{value:.4g}" for name, value in metrics.items()}, refresh=False
                )
                bar.update(done - bar.n)

            yield draw
        return
    start = last = time.monotonic()
    first = 0

    def write(done: int, total: int, metrics: Mapping[str, float]) -> None:
        nonlocal last, first, start
        now = time.monotonic()
        if not first:
            first, start = done, now
        if now - last < QUIET_SECONDS or done == first:
            return
        last = now
        left = (now - start) / (done - first) * (total - done)
        values = "".join(f", {name} {value:.4g}" for name, value in metrics.items())
        print(f"{label}: {done} of {total}{values}, {left:.0f} s left", file=sys.stderr, flush=True)  # noqa: T201

    yield write
