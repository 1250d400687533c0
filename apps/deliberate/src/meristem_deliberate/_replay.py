"""Measure samples that were drawn elsewhere."""

from pathlib import Path

import meristem_testtime as tt
from meristem_core import sha256_of
from meristem_core.command import UsageError, progress_bar
from meristem_deliberate._config import ReplayConfig
from meristem_deliberate._measure import Measured, measure
from meristem_deliberate._pipeline import conclude


def replay(config: ReplayConfig) -> int:
    """Read the table, measure every stratum, write and print the result."""
    by = tuple(name for name in config.by.split(",") if name)
    ks = _numbers(config.ks)
    strata, chains = _read(config.traces, by)
    measured: dict[str, Measured] = {}
    with progress_bar("measure") as show:
        for done, (name, traces) in enumerate(strata.items(), 1):
            try:
                measured[name] = measure(traces, chains.get(name), ks=ks, seed=config.seed)
            except ValueError as error:
                raise UsageError(f"{config.traces}: {name or 'all samples'}: {error}") from error
            show(done, len(strata), {})
    config.out.mkdir(parents=True, exist_ok=True)
    facts = {"traces": config.traces.name, "sha256": sha256_of(config.traces),
             "by": list(by), "seed": config.seed}  # fmt: skip
    return conclude(config.out, measured, facts, as_json=config.json)


def _read(path: Path, by: tuple[str, ...]) -> tuple[dict[str, tt.Traces], dict[str, tt.Chains]]:
    try:
        return tt.read_traces(path, by=by), tt.read_chains(path, by=by)
    except FileNotFoundError:
        raise UsageError(f"{path} not found; give a table of samples") from None
    except (ValueError, EOFError) as error:
        raise UsageError(str(error)) from error


def _numbers(text: str) -> tuple[int, ...] | None:
    if not text:
        return None
    try:
        found = tuple(int(each) for each in text.split(","))
    except ValueError:
        raise UsageError(f"--ks is {text!r}; write whole numbers such as 1,2,4,8") from None
    if min(found) < 1 or len(set(found)) < len(found):
        raise UsageError(f"--ks is {text!r}; write different numbers of at least 1")
    return tuple(sorted(found))
