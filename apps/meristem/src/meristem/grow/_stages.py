"""A stage is a function from typed inputs to a typed result in a folder of its own.

- the result is written last, so a folder with a result is a finished stage and is not run again
- an unfinished stage starts again in the same folder and may use what it finds there
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from meristem_core import read_json, write_json
from meristem_core.command import Progress, UsageError, progress_bar

RESULT = "stage.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stages:
    """Runs the stages of one run folder on all its processes."""

    run: Path
    accelerator: Accelerator
    say: Callable[[str], None]

    def folder(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.run / name

    def alone(self, name: str, kind: type[T], make: Callable[[Path, Progress], T]) -> T:
        """Return the result of a stage that the main process makes while the others wait."""
        self.on_main(lambda: self._finish(name, make))
        return self._load(name, kind)

    def together(self, name: str, kind: type[T], make: Callable[[Path, Progress], T | None]) -> T:
        """Return the result of a stage that all processes make; the main one returns it."""
        self._finish(name, make)
        return self._load(name, kind)

    def on_main(self, action: Callable[[], None]) -> None:
        """Act on the main process; where that fails, the others end without a word of their own."""
        failure: UsageError | OSError | None = None
        if self.accelerator.is_main_process:
            try:
                action()
            except (UsageError, OSError) as error:
                failure = error
        failed = broadcast_object_list([failure is not None])[0]
        if failure is not None:
            raise failure
        if failed:
            sys.exit(2)

    def seconds(self) -> dict[str, float]:
        """Return how long each finished stage took, in the session that finished it."""
        results = sorted(self.run.glob(f"*/{RESULT}"), key=lambda path: path.stat().st_mtime_ns)
        return {path.parent.name: read_json(path)["seconds"] for path in results}

    def _finish(self, name: str, make: Callable[[Path, Progress], T | None]) -> None:
        folder = self.folder(name)
        if (folder / RESULT).exists():
            self.say(f"{name}: finished before")
            return
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        with progress_bar(name) as progress:
            result = make(folder, progress)
        seconds = time.perf_counter() - start
        if self.accelerator.is_main_process:
            write_json(folder / RESULT, {"seconds": seconds, "result": result})
            self.say(f"{name}: {seconds:.1f} s")

    def _load(self, name: str, kind: type[T]) -> T:
        self.accelerator.wait_for_everyone()
        return msgspec.convert(read_json(self.folder(name) / RESULT)["result"], kind)
