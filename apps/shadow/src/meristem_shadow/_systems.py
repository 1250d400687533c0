"""Systems by name or from a file, and what is known of them."""

import inspect
from collections.abc import Sequence
from fractions import Fraction

from meristem_core.command import UsageError
from meristem_dynamics import Flow, Map, load_system, zoo
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
        return load_system(path, part or None, **values)
    except ValueError as error:
        raise UsageError(str(error)) from error


def find_map(name: str, params: Sequence[str]) -> Map:
    """Return the map of a name or file; a flow is an error."""
    found = find_system(name, params)
    if isinstance(found, Flow):
        raise UsageError(f"{name} is a flow; this command takes a map")
    return found


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
