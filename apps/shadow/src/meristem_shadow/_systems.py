"""Systems by name or from a file, and what is known of them."""

import inspect
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from meristem_core.command import UsageError
from meristem_dynamics import FixedPoint, Flow, Map, fixed_point, load_system, zoo
from meristem_shadow._config import InfoConfig, ListConfig


def find_system(name: str, params: Sequence[str]) -> Map | Flow:
    """Return the system of a name or file with its parameters.

    Raises
    ------
    UsageError
        If there is no such system or parameter.
    """
    values = dict(_parameter(each) for each in params)
    try:
        if name in zoo.MAPS_AND_FLOWS:
            return _from_zoo(name, values)
        path, _, part = name.partition(":")
        if not path.endswith(".py"):
            known = ", ".join(zoo.MAPS_AND_FLOWS)
            raise UsageError(f"no system {name}; give FILE.py, FILE.py:NAME or one of {known}")
        return _from_file(path, part or None, values)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _from_file(path: str, part: str | None, values: dict[str, str]) -> Map | Flow:
    try:
        return load_system(path, part, **values)
    except (ValueError, OSError):
        raise
    except Exception as error:  # the user's file is run, and anything may go wrong in it
        raise UsageError(f"{path} cannot be run: {type(error).__name__}: {error}") from error


def find_map(name: str, params: Sequence[str]) -> Map:
    """Return the map of a name or file; a flow is an error."""
    found = find_system(name, params)
    if isinstance(found, Flow):
        raise UsageError(f"{name} is a flow; this command takes a map")
    return found


def numbers(option: str, text: str, system: Map | Flow) -> tuple[float, ...]:
    """Return the point that a text such as "0.1,0.2" stands for, one number a variable."""
    try:
        point = tuple(float(x) for x in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: give numbers with commas, such as 0.1,0.2") from error
    if len(point) != system.dim or not np.isfinite(point).all():
        raise UsageError(
            f"{option} {text}: {system.name} has {system.dim} variables; give a finite number each"
        )
    return point


def found_point(system: Map | Flow, text: str) -> FixedPoint:
    """Return the fixed point near a text's point, by default near the one that is known, or 0.

    Raises
    ------
    UsageError
        If the system cannot be evaluated or differentiated there, or no fixed point is near.
    """
    known = system.exact.get("fixed_point", (0.0,) * system.dim)
    guess = numbers("--at", text, system) if text else tuple(float(x) for x in known)
    try:
        image = [float(x) for x in system.f(guess, system.parameters())]
    except Exception as error:  # the user's code
        raise UsageError(
            f"{system.name} fails at {list(guess)}: {type(error).__name__}: {error}"
        ) from error
    if len(image) != system.dim or not np.isfinite(image).all():
        raise UsageError(
            f"{system.name} sends {list(guess)} to {image}; it must give {system.dim} finite "
            "numbers, so mend f or choose --at elsewhere"
        )
    try:
        return fixed_point(system, guess)
    except np.linalg.LinAlgError as error:
        raise UsageError(
            f"{list(guess)} is not near a fixed point of {system.name}: {error}; give a nearer --at"
        ) from error


def _from_zoo(name: str, values: dict[str, str]) -> Map | Flow:
    make = zoo.MAPS_AND_FLOWS[name]
    known = inspect.signature(make).parameters
    wrong = [key for key in values if key not in known]
    if wrong:
        raise UsageError(f"{name} has no parameter {wrong[0]}; it has {', '.join(known) or 'none'}")
    return make(**values)


def _parameter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    try:
        Fraction(value)
    except (ValueError, ZeroDivisionError):
        equals = ""
    if not (key and equals):
        raise UsageError(f"-p {text}: give NAME=NUMBER, such as a=1.4 or beta=8/3")
    return key, value


def run(config: ListConfig | InfoConfig) -> int:
    """Print the list, or what is known of one system."""
    if isinstance(config, ListConfig):
        width = max(map(len, zoo.MAPS_AND_FLOWS))
        for name, make in zoo.MAPS_AND_FLOWS.items():
            first = (inspect.getdoc(make) or "").splitlines()[0]
            print(f"{name.ljust(width)}  {first.removeprefix('Return ').rstrip('.:')}")
        return 0
    system = find_system(config.system, config.params)
    print(f"{system.name}: a {type(system).__name__.lower()} in {system.dim} variables")
    for key, value in system.exact_parameters().items():
        print(f"  {key} = {value}")
    for key, value in system.exact.items():
        print(f"  known: {key.replace('_', ' ')} = {value}")
    return 0
