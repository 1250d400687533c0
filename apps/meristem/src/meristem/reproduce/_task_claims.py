"""The claim of paper 2509.17196 on behaviours: tens of features carry one, random ones do not."""

from collections.abc import Sequence
from statistics import median

from meristem.reproduce._claims import Claim, bounds, judge
from meristem.reproduce._crosscoders import Trained
from meristem_core import Interval, wilson_interval
from meristem_evolution.run import Task

TASK_ACCURACY = 0.7  # below it the model does not do the task, and no feature can carry it
UNABLE = f"with an accuracy below {TASK_ACCURACY} the model does not do it"
MOST = 64  # features that are still tens


def tasks(runs: Sequence[Trained]) -> list[Claim]:
    """Judge whether tens of features restore a behaviour, and random ones do not."""
    names = {task.name for run in runs for task in run.attributed.tasks}
    without = {name: why for run in runs for name, why in run.attributed.without.items()}
    return [_task(name, runs, without.get(name, "")) for name in sorted(names | without.keys())]


def _task(name: str, runs: Sequence[Trained], why: str) -> Claim:
    tried = [task for run in runs for task in run.attributed.tasks if task.name == name]
    accuracies = [_accuracy(task) for task in tried]
    able = bool(tried) and median(each.estimate for each in accuracies) >= TASK_ACCURACY
    found: list[Interval] = []
    held: list[bool | None] = []
    counts: list[str] = []
    for shares in (task.restore for task in tried if task.restore is not None):
        few = [place for place, k in enumerate(shares.features) if 1 <= k <= MOST]
        best = max(few, key=shares.faithfulness.__getitem__)
        value = shares.faithfulness[best]
        low, high = shares.low[best], shares.high[best]
        found.append(bounds(value))
        held.append(True if value >= 0.8 and high < 0.2 else (None if value > high else False))
        counts.append(f"{shares.features[best]} (random ones {low:.2f} to {high:.2f})")
    accuracy = ", ".join(f"{each.estimate:.2f} [{each.low:.2f}, {each.high:.2f}]"
                         for each in accuracies)  # fmt: skip
    notes = [
        f"features: {', '.join(counts)}" if counts else "",
        f"accuracy of the model, by Wilson: {accuracy}" if accuracies else "",
        "" if able else f"not judged: {why or UNABLE}",
    ]
    return Claim(
        claim=f"tens of features restore {name}: faithfulness",
        claimed=f">= 0.8 with at most {MOST} features, random ones below 0.2",
        found=found,
        verdict=judge(held) if able else "not testable here",
        note="; ".join(filter(None, notes)),
    )


def _accuracy(task: Task) -> Interval:
    """Return the accuracy at the last snapshot, over pairs."""
    return wilson_interval(round(task.accuracy[-1] * task.pairs), task.pairs)
