"""The output embedding of a model of transformers, and what shapes its logits."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The output embedding of a model and what shapes its logits."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None
    scale: float
    softcap: float | None


def head_of(model: nn.Module) -> Head:
    """Return the head of a causal model, unwrapped; shards are gathered.

    Raises
    ------
    ValueError
        A model without output embeddings, or with an adapter on them.
    """
    inner = unwrap(model)
    linear = inner.get_output_embeddings()
    if linear is None:
        raise ValueError(f"{type(inner).__name__} has no output embeddings; pass a causal model")
    if hasattr(linear, "base_layer"):
        raise ValueError(
            "an adapter sits on the output embeddings, whose weight alone would be used; leave "
            "lm_head out of its target modules"
        )
    config = inner.config.get_text_config()
    bias = getattr(linear, "bias", None)
    return Head(
        weight=_whole(linear.weight),
        bias=None if bias is None else _whole(bias),
        scale=_scale(config),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def head_options(model: nn.Module) -> dict[str, Any]:
    """Return the head as keyword arguments of the primitive."""
    head = head_of(model)
    return {"weight": head.weight, "bias": head.bias, "scale": head.scale, "softcap": head.softcap}


def unwrap(model: nn.Module) -> Any:
    """Return the model below data-parallel wrappers, compilation and adapters."""
    inner: Any = model
    while True:
        if isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = inner.module
        elif hasattr(inner, "_orig_mod"):  # torch.compile
            inner = inner._orig_mod
        elif hasattr(inner, "get_base_model"):  # PEFT
            inner = inner.get_base_model()
        else:
            return inner


def _whole(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def _scale(config: Any) -> float:
    """Return what multiplies the logits; names as the models' configurations have them."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None:
        return 1.0
    return float(divisor) if config.model_type == "hyperclovax" else 1 / float(divisor)
