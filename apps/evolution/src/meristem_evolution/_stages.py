"""A stage is a function that leaves a result in a folder of its own.

- the result is written last, so a folder with a result is a finished stage and is not run again
- an unfinished stage starts again in the same folder and may use what it finds there
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from meristem_core import read_json, write_json
from meristem_core.command import Progress, progress_bar

RESULT = "stage.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stages:
    """Runs the stages of one run folder."""

    run: Path
    say: Callable[[str], None]
    prefix: str = ""  # of what is said, where another command runs the stages

    def folder(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.run / name

    def finish(self, name: str, kind: type[T], make: Callable[[Path, Progress], T]) -> T:
        """Return the result of a stage, made now or before."""
        folder = self.folder(name)
        if (folder / RESULT).exists():
            self.say(f"{self.prefix}{name}: finished before")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            with progress_bar(f"{self.prefix}{name}") as progress:
                result = make(folder, progress)
            seconds = time.perf_counter() - start
            write_json(folder / RESULT, {"seconds": seconds, "result": result})
            self.say(f"{self.prefix}{name}: {seconds:.1f} s")
        return msgspec.convert(read_json(folder / RESULT)["result"], kind)

    def seconds(self) -> dict[str, float]:
        """Return how long each finished stage took, in the session that finished it."""
        results = sorted(self.run.glob(f"*/{RESULT}"), key=lambda path: path.stat().st_mtime_ns)
        return {path.parent.name: read_json(path)["seconds"] for path in results}
