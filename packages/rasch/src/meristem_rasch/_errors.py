"""What can go wrong, named so that callers can tell the cases apart."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np

Result = TypeVar("Result")
Status = Literal["converged", "max_steps"]


class DataError(ValueError):
    """The responses break a rule of the model; the message names item, value, rule and mend."""


class ExistenceError(ValueError):
    """No finite estimates exist; the message names the items or categories at fault."""


class IdentificationError(ValueError):
    """The design leaves parameters undetermined; the message names them."""


class ConvergenceError(RuntimeError):
    """The iterations ended before the stopping rule was met.

    `state` is the result as it was then, of status "max_steps"; None where none can be made.
    """

    def __init__(self, message: str, state: Any = None) -> None:
        super().__init__(message)
        self.state = state


def conclude(
    result: Callable[[Status], Result],
    *,
    converged: bool,
    strict: bool,
    tol: float,
    max_steps: int,
) -> Result:
    """Return the result; if the search has not converged, raise it unless `strict` is off.

    Raises
    ------
    ConvergenceError
        Also without `strict`, where the information is singular at the last state.
    """
    if converged:
        return result("converged")
    message = f"no convergence to {tol} within {max_steps} steps; raise max_steps"
    try:
        state = result("max_steps")
    except (ExistenceError, np.linalg.LinAlgError) as error:
        raise ConvergenceError(f"{message} (and there are no errors there: {error})") from error
    if strict:
        raise ConvergenceError(f"{message}, or take it as it is with strict=False", state)
    return state
