"""Run in a peer's own environment: print times, difficulties and slopes as JSON.

_peers.py TABLE.csv girth|girth-2pl|py-irt|irtorch [EPOCHS]
"""

import importlib.metadata
import json
import sys
import time

import numpy as np


def timed(work):
    start = time.perf_counter()
    out = work()
    return time.perf_counter() - start, out


def girth_and_rasch_py(table, _):
    import girth
    import pandas as pd
    from raschpy import SLM

    def rasch_py():
        model = SLM(pd.DataFrame(table))
        model.calibrate()
        model.fit_statistics()
        return np.asarray(model.items, dtype=float), 1.0

    def of_girth(name):
        return lambda: (getattr(girth, name)(table.T)["Difficulty"], 1.0)

    return {
        "RaschPy calibrate + fit_statistics (pairwise)": rasch_py,
        "girth rasch_mml (estimates only)": of_girth("rasch_mml"),
        "girth rasch_jml (estimates only)": of_girth("rasch_jml"),
    }


def girth_slopes(table, _):
    import girth

    def run():
        found = girth.twopl_mml(table.T)
        return found["Difficulty"], found["Discrimination"]

    return {"girth twopl_mml": run}


def py_irt(table, epochs):
    import pandas as pd
    import torch
    from py_irt.config import IrtConfig
    from py_irt.dataset import Dataset
    from py_irt.training import IrtModelTrainer

    data = Dataset.from_pandas(
        pd.DataFrame(table, columns=[f"i{k}" for k in range(table.shape[1])])
    )

    def run():
        torch.manual_seed(0)
        trainer = IrtModelTrainer(
            config=IrtConfig(model_type="2pl", epochs=epochs, priors="vague"),
            data_path=None,
            dataset=data,
            verbose=False,
        )
        trainer.train(epochs=epochs)
        found = trainer.last_params
        order = np.argsort([int(found["item_ids"][k][1:]) for k in range(table.shape[1])])
        mean, sd = np.mean(found["ability"]), np.std(found["ability"])
        b, a = np.array(found["diff"])[order], np.array(found["disc"])[order]
        return (b - mean) / sd, a * sd  # its abilities have their own mean and sd

    return {f"py-irt 2pl, {epochs} epochs (variational)": run}


def irtorch(table, _):
    import torch
    from irtorch.estimation_algorithms import MML
    from irtorch.models import TwoParameterLogistic

    def run():
        torch.manual_seed(0)
        model = TwoParameterLogistic(items=table.shape[1])
        model.fit(train_data=torch.tensor(table, dtype=torch.float32), algorithm=MML())
        found = model.item_parameters(irt_format=True)
        return found["b"].to_numpy(), found["a1"].to_numpy()

    return {"irtorch MML": run}


TASKS = {
    "girth": (girth_and_rasch_py, ("girth", "raschpy")),
    "girth-2pl": (girth_slopes, ("girth",)),
    "py-irt": (py_irt, ("py-irt", "pyro-ppl", "torch")),
    "irtorch": (irtorch, ("irtorch", "torch")),
}


def main():
    table = np.loadtxt(sys.argv[1], delimiter=",", dtype=int)
    prepare, names = TASKS[sys.argv[2]]
    rows = {}
    for name, run in prepare(table, int(sys.argv[3]) if sys.argv[3:] else 0).items():
        seconds, (difficulty, slope) = timed(run)
        b = np.asarray(difficulty, dtype=float)
        a = np.broadcast_to(np.asarray(slope, dtype=float), b.shape)
        rows[name] = [seconds, b.tolist(), a.tolist()]
    versions = {name: importlib.metadata.version(name) for name in names}
    print("\n" + json.dumps({"rows": rows, "versions": versions}))


if __name__ == "__main__":
    main()
