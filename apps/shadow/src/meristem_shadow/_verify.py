"""Check a certificate anew."""

import json
from dataclasses import asdict

from meristem_core.command import UsageError
from meristem_dynamics.verifier import verify
from meristem_shadow._config import VerifyConfig
from meristem_shadow._systems import find_system


def run(config: VerifyConfig) -> int:
    """Print the verdict and return 0 if every step is proved."""
    system = find_system(config.system, config.params)
    if not config.file.exists():
        raise UsageError(f"{config.file} does not exist; give a certificate or a folder of blocks")
    verdict = verify(system, config.file)
    if config.json:
        plain = asdict(verdict) | {"radius_max": verdict.radius_max if verdict.ok else None}
        print(json.dumps(plain))
    elif verdict.ok:
        within = f"within {verdict.radius_max:.3g} of all {verdict.n_steps + 1:,} points"
        if verdict.time_shift is None:
            print(f"proved: a true orbit of {system.name} stays {within}")
        else:
            late = f"at times {verdict.time_shift:.2g} off at most"
            print(f"proved: a true solution of {system.name} passes {within}, {late}")
    else:
        print(f"not proved: {verdict.reason}")
    return 0 if verdict.ok else 1
