"""A loss of meristem-losses by name: what its signature asks for decides how it is called."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

import meristem_losses
from meristem_core.command import UsageError
from meristem_losses import Divergence, TokenStats, preference_pairs
from meristem_losses.hf import Statistics

COUPLED = ("aot", "aot_unpaired")  # these sort over the whole batch
REFERENCE = ("ref_stats", "ref_logprobs", "old_logprobs", "log_ratios", "chosen_ref")
REFERENCE_FREE = ("cpo", "simpo", "alphapo", "orpo")
GIVEN = {  # positional parameters that demonstrations or pairs can fill
    "sft": ("stats", "ref_stats", "ref_logprobs", "old_logprobs"),
    "dpo": ("pairs", "log_ratios", "desirable"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A loss with its parameters; `values` gives one number a token, a row or a pair."""

    name: str
    stage: Literal["sft", "dpo"]
    settings: Mapping[str, Any]
    reference: bool
    coupled: bool
    beta: float  # scale of the reported rewards
    statistics: Statistics
    values: Callable[[TokenStats, TokenStats | None], Tensor]


def objective_names(stage: Literal["sft", "dpo"]) -> list[str]:
    """Return the names of the losses that the data of a stage can fill."""
    return [
        name.removesuffix("_loss")
        for name in meristem_losses.__all__
        if name.endswith("_loss") and _fills(stage, getattr(meristem_losses, name))
    ]


def find_objective(
    stage: Literal["sft", "dpo"], name: str, settings: Mapping[str, str]
) -> Objective:
    """Return a loss by name.

    Parameters
    ----------
    stage
        sft for demonstrations, dpo for pairs.
    name
        The function of `meristem_losses` without its "_loss".
    settings
        Parameters of the loss as text; a divergence by its name in lower case, or alpha:0.3.

    Raises
    ------
    UsageError
        A name, a parameter or a value that the loss does not have; says which there are.

    Examples
    --------
    >>> find_objective("dpo", "ipo", {"tau": "0.2"}).reference
    True
    """
    names = objective_names(stage)
    if name not in names:
        raise UsageError(f"--loss {name} does not fit {stage}; there are {', '.join(names)}")
    function = getattr(meristem_losses, f"{name}_loss")
    parameters = inspect.signature(function).parameters
    if "divergence" in parameters and parameters["divergence"].kind is not KEYWORD:
        settings = {"divergence": "reverse_kl", **settings}
    keywords: dict[str, Any] = {
        key: _value(name, key, text, parameters) for key, text in settings.items()
    }
    needed = [key for key in parameters if key in REFERENCE]
    chosen = [keywords[key] for key in ("divergence",) if key in keywords]
    for divergence in chosen:
        _check_divergence(stage, name, divergence)

    def fine_tuning(stats: TokenStats, ref: TokenStats | None) -> Tensor:
        other: dict[str, Any] = {
            key: ref if key == "ref_stats" else ref.logprobs for key in needed if ref is not None
        }
        return function(stats, **other, **keywords)

    def preferences(stats: TokenStats, ref: TokenStats | None) -> Tensor:
        pairs = preference_pairs(stats, ref)
        if "log_ratios" not in parameters:
            return function(pairs, **keywords)
        ratios = torch.cat(pairs.log_ratios())
        first = torch.arange(len(ratios), device=ratios.device) < len(ratios) // 2
        halves = function(ratios, first, **keywords).chunk(2)
        return halves[0] + halves[1]

    return Objective(
        name=name,
        stage=stage,
        settings=dict(settings),
        reference=bool(needed) or (stage == "dpo" and name not in REFERENCE_FREE),
        coupled=name in COUPLED,
        beta=float(keywords.get("beta", _default(parameters, "beta"))),
        statistics=Statistics(
            mean_logit=float(keywords.get("smoothing", 0)) > 0 and stage == "sft",
            top_k_entropy=int(keywords.get("k", 20)) if name == "eaft" else None,
        ),
        values=fine_tuning if stage == "sft" else preferences,
    )


KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _fills(stage: str, function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters
    needed = [k for k, p in parameters.items() if p.default is p.empty and k != "divergence"]
    return bool(needed) and needed[0] in GIVEN[stage] and set(needed) <= set(GIVEN[stage])


def _default(parameters: Mapping[str, inspect.Parameter], name: str) -> float:
    return float(parameters[name].default) if name in parameters else 1.0


def _value(
    loss: str, key: str, text: str, parameters: Mapping[str, inspect.Parameter]
) -> float | bool | int | Divergence:
    if key == "divergence" and key in parameters:
        return _divergence(text)
    known = [k for k, p in parameters.items() if p.kind is KEYWORD and k != "divergence"]
    if key not in known:
        has = ", ".join([*known, *[k for k in ("divergence",) if k in parameters]])
        raise UsageError(f"--set {key}: {loss} has no such parameter; it has {has or 'none'}")
    default = parameters[key].default
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return int(text) if isinstance(default, int) else float(text)
    except (ValueError, KeyError) as error:
        kind = type(default).__name__
        raise UsageError(f"--set {key}={text}: {loss} takes a {kind} there") from error


def _divergence(text: str) -> Divergence:
    if text.startswith("alpha:"):
        try:
            return meristem_losses.alpha_divergence(float(text.removeprefix("alpha:")))
        except ValueError as error:
            raise UsageError(f"--set divergence={text}: {error}") from error
    found = getattr(meristem_losses, text.upper(), None)
    if not isinstance(found, Divergence):
        names = [n for n in meristem_losses.__all__ if n.isupper()]
        known = ", ".join(n.lower() for n in names)
        raise UsageError(f"--set divergence={text} is none; there are {known} and alpha:NUMBER")
    return found


def _check_divergence(stage: str, loss: str, divergence: Divergence) -> None:
    usable = divergence.phi if stage == "sft" else divergence.link
    if usable is None:
        raise UsageError(f"--set divergence: {divergence.name} does not fit {loss}; choose another")
