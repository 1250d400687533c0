"""The stages for other apps: what `meristem evolution` does with a study of theirs; needs torch."""

from meristem_evolution._attribute import Attributed, Task
from meristem_evolution._checkpoints import default_site
from meristem_evolution._measure import Measured, load_arrays
from meristem_evolution._run import Evolved, evolve, fit_and_measure, run_evolution
from meristem_evolution._stages import Stages
from meristem_evolution._study import Study
from meristem_evolution._text import Text, token_bytes

__all__ = [
    "Attributed",
    "Evolved",
    "Measured",
    "Stages",
    "Study",
    "Task",
    "Text",
    "default_site",
    "evolve",
    "fit_and_measure",
    "load_arrays",
    "run_evolution",
    "token_bytes",
]
