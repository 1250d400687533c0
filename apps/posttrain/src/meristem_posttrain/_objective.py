"""A loss of meristem-losses by name: what its signature asks for decides how it is called."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

import meristem_losses
from meristem_core.command import UsageError
from meristem_losses import (
    Divergence,
    TokenStats,
    preference_pairs,
    sequence_logprobs,
    token_advantages,
)
from meristem_losses.hf import Statistics
from meristem_posttrain._data import Form

Stage = Literal["sft", "dpo", "kto", "rank"]
COUPLED = ("aot", "aot_unpaired")  # these sort over the whole batch
REFERENCE = (
    "ref_stats", "ref_logprobs", "old_logprobs", "forward_kl", "log_ratios", "chosen_ref", "scores",
)  # fmt: skip
REFERENCE_FREE = ("cpo", "simpo", "alphapo", "orpo", "tpo", "tpo_l")
GIVEN = {  # positional parameters that the data of a stage can fill
    "sft": ("stats", "ref_stats", "ref_logprobs", "old_logprobs", "forward_kl"),
    "dpo": ("pairs", "log_ratios", "desirable", "probability", "gold_nll"),
    "kto": ("log_ratios", "desirable", "reference_point"),
    "rank": ("scores",),
}
RESPONSES = {
    "sft": ("completion",), "dpo": ("chosen", "rejected"), "kto": ("completion",),
    "rank": ("ranked",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a loss is given besides statistics of rows, of which an example has one a response."""

    examples: int
    values: Float[Tensor, " N"] | None = None  # labels as 0 or 1, or probabilities
    reference_point: Float[Tensor, ""] | None = None
    forward_kl: Float[Tensor, "B S"] | None = None

    def select(self, rows: Int[Tensor, " R"]) -> "Given":
        """Return what belongs to whole examples, given their rows in ascending order."""
        first = rows[rows < self.examples]
        return replace(
            self,
            examples=len(first),
            values=None if self.values is None else self.values[first],
            forward_kl=None if self.forward_kl is None else self.forward_kl[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A loss with its parameters; `values` gives one number a token, a row or an example."""

    name: str
    stage: Stage
    form: Form
    settings: Mapping[str, Any]
    reference: bool
    forward_kl: bool  # needs KL(reference || policy) over the vocabulary
    mismatched: bool  # needs the log-ratio of responses to other prompts
    coupled: bool
    beta: float  # scale of the reported rewards
    statistics: Statistics
    values: Callable[[TokenStats, TokenStats | None, Given], Tensor]


def objective_names(stage: Stage) -> list[str]:
    """Return the names of the losses that the data of a stage can fill."""
    return [
        name.removesuffix("_loss")
        for name in meristem_losses.__all__
        if name.endswith("_loss") and _fills(stage, getattr(meristem_losses, name))
    ]


def find_objective(stage: Stage, name: str, settings: Mapping[str, str]) -> Objective:
    """Return a loss by name.

    Parameters
    ----------
    stage
        sft for demonstrations, dpo for pairs, kto for labelled responses, rank for rankings.
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

    call = {"sft": _fine_tuning, "dpo": _preferences, "kto": _labelled, "rank": _ranked}[stage]

    def values(stats: TokenStats, ref: TokenStats | None, given: Given) -> Tensor:
        arguments = call(stats, ref, given, parameters)
        if name.endswith("_unpaired") and stage == "dpo":
            halves = function(**arguments, **keywords).chunk(2)
            return halves[0] + halves[1]
        return function(**arguments, **keywords)

    return Objective(
        name=name,
        stage=stage,
        form=_form(stage, parameters),
        settings=dict(settings),
        reference=bool(needed) or (stage == "dpo" and name not in REFERENCE_FREE),
        forward_kl="forward_kl" in parameters,
        mismatched="reference_point" in parameters,
        coupled=name in COUPLED,
        beta=float(keywords.get("beta", _default(parameters, "beta"))),
        statistics=Statistics(
            mean_logit=float(keywords.get("smoothing", 0)) > 0 and stage == "sft",
            top_k_entropy=int(keywords.get("k", 20)) if name == "eaft" else None,
        ),
        values=values,
    )


Parameters = Mapping[str, inspect.Parameter]


def _fine_tuning(
    stats: TokenStats, ref: TokenStats | None, given: Given, parameters: Parameters
) -> dict[str, Any]:
    known: dict[str, Any] = {"stats": stats, "forward_kl": given.forward_kl, "ref_stats": ref}
    if ref is not None:
        known |= {"ref_logprobs": ref.logprobs, "old_logprobs": ref.logprobs}
    return {k: v for k, v in known.items() if k in parameters}


def _preferences(
    stats: TokenStats, ref: TokenStats | None, given: Given, parameters: Parameters
) -> dict[str, Any]:
    n = given.examples
    of_pairs = torch.arange(2 * n, device=stats.mask.device)
    pairs = preference_pairs(stats.select(of_pairs), None if ref is None else ref.select(of_pairs))
    if "log_ratios" in parameters:
        return {"log_ratios": torch.cat(pairs.log_ratios()), "desirable": of_pairs < n}
    found: dict[str, Any] = {"pairs": pairs}
    if "probability" in parameters:
        found["probability"] = given.values
    if "gold_nll" in parameters:
        found["gold_nll"] = -sequence_logprobs(stats.select(of_pairs[:n] + 2 * n), average=True)
    return found


def _labelled(
    stats: TokenStats, ref: TokenStats | None, given: Given, parameters: Parameters
) -> dict[str, Any]:
    if ref is None or given.values is None:
        raise ValueError("labelled responses need the reference's statistics and labels")
    found: dict[str, Any] = {
        "log_ratios": token_advantages(stats, ref).sum(1),
        "desirable": given.values > 0.5,
    }
    if "reference_point" in parameters:
        found["reference_point"] = given.reference_point
    return found


def _ranked(
    stats: TokenStats, ref: TokenStats | None, given: Given, parameters: Parameters
) -> dict[str, Any]:
    if ref is None:
        raise ValueError("rankings need the reference's statistics")
    return {"scores": token_advantages(stats, ref).sum(1).view(-1, given.examples).T}


def _form(stage: Stage, parameters: Parameters) -> Form:
    gold = ("gold",) if "gold_nll" in parameters else ()
    value = "probability" if "probability" in parameters else None
    return Form(responses=(*RESPONSES[stage], *gold), value="label" if stage == "kto" else value)


KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _fills(stage: str, function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters
    needed = [k for k, p in parameters.items() if p.default is p.empty and k != "divergence"]
    return bool(needed) and needed[0] in GIVEN[stage] and set(needed) <= set(GIVEN[stage])


def _default(parameters: Parameters, name: str) -> float:
    return float(parameters[name].default) if name in parameters else 1.0


def _value(
    loss: str, key: str, text: str, parameters: Parameters
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
