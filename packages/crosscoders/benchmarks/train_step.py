"""Time and memory of a training step against other libraries, on the same batches.

    python packages/crosscoders/benchmarks/train_step.py --install   # once: makes benchmarks/.peers
    python packages/crosscoders/benchmarks/train_step.py

The second command runs in that environment: ours, a plain dense TopK with fused Adam, eai-sparsify,
sae-lens, dictionary-learning, Llamascopium, and the encoder's product alone. Steps are interleaved;
a ratio is the median over rounds of their time over ours. `--quick` uses small sizes, `--parts`
names tables. Equal tokens: the share of variance left after `--loss-steps` steps.

crosscoder_learning is on no index: `--crosscoder-learning DIR` adds a checkout of it, and our
BatchTopK, which is what it trains.
"""

import argparse
import ctypes
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from _peers import DENSE, OURS, WAYS, batches, batchtopk, jumprelu, start

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
PACKAGES = ("eai-sparsify", "sae-lens", "llamascopium", "dictionary-learning")
PARTS = ("topk", "memory", "jumprelu", "growth", "loss", "harvest")
SMALL = {"B": 128, "S": 4, "d": 32, "F": 512, "k": 8}


def install():
    """Make the environment of the peers; dictionary-learning without its old pins."""
    root = HERE.parents[2]
    torch = version("torch").split("+")[0]
    own = ["-e", f"{root}/packages/core[torch]", "-e", f"{root}/packages/crosscoders"]
    into = ["uv", "pip", "install", "--python", str(PEERS / "bin" / "python")]
    made = ["uv", "venv", "--allow-existing", "--python", sys.executable, str(PEERS)]
    index = [f"torch=={torch}", *PACKAGES[:2], "llamascopium>=2.0.0b34", "nnsight", *own]
    for words in (made, [*into, *index], [*into, "--no-deps", PACKAGES[-1]]):
        subprocess.run(words, check=True)


def measure(ways, sizes, rounds, warmup=3):
    """Return seconds of each way by round, and what could not run."""
    data, steps, absent = batches(sizes, 4), {}, {}
    for name, way in ways.items():
        try:
            steps[name] = way(sizes, data[0], 1e-3)[0]
            for i in range(warmup):
                steps[name](data[i % 4])
        except Exception as error:
            steps.pop(name, None)
            absent[name] = f"{type(error).__name__}: {error}"[:80]
    seconds = {name: [] for name in steps}
    for i in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step(data[i % 4])
            seconds[name].append(time.perf_counter() - begin)
    return seconds, absent


def rows(seconds, absent):
    """Print a row per way: its time and how often ours fits into it."""
    for name, found in seconds.items():
        ratios = [x / y for x, y in zip(found, seconds[OURS], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"| {name} | {1e3 * statistics.median(found):.0f} | {spread} |", flush=True)
    for name, reason in absent.items():
        print(f"| {name} | - | absent ({reason}) |")


def topk(words, sizes):
    """Print times of the TopK step."""
    print("\n| TopK step | ms | time over ours (range) |\n|---|---|---|", flush=True)
    rows(*measure(WAYS, sizes, words.rounds))


def resident(field):
    """Return MiB that the system counts for this process: VmRSS now, VmHWM at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":") for line in lines)[field].split()[0]) / 1024


def alone(name, sizes):
    """Print MiB that 4 steps of one way need beyond imports and batches: the peak of this process.

    The peak is set back before the way is made. That of `getrusage` is no use: a child inherits
    its parent's.
    """
    data, tiny = batches(sizes, 4), {**sizes, "F": 256, "S": 1, "d": 16, "B": 32}
    step, _ = WAYS[name](tiny, batches(tiny, 1)[0], 1e-3)
    step(batches(tiny, 1)[0])  # loads what is loaded at first use
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free but kept would hide what is needed
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step, _ = WAYS[name](sizes, data[0], 1e-3)
    for x in data:
        step(x)
    print(f"{resident('VmHWM') - before:.0f}")


def memory(words, sizes):
    """Print the memory of each way, each in a process of its own."""
    held = 2 * sizes["F"] * sizes["S"] * sizes["d"] * 4 / 2**20
    print(f"\n| 4 steps | MiB at the peak | beyond weights and moments ({3 * held:.0f}) |")
    print("|---|---|---|", flush=True)
    given = [f"--{key}={value}" for key, value in sizes.items()]
    if words.crosscoder_learning:
        given += ["--crosscoder-learning", words.crosscoder_learning]
    for name in (each for each in WAYS if "product" not in each):
        command = [sys.executable, __file__, "--alone", name, *given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:80]
            print(f"| {name} | - | absent ({reason}) |")
            continue
        peak = float(done.stdout.strip().splitlines()[-1])
        print(f"| {name} | {peak:.0f} | {peak - 3 * held:.0f} |", flush=True)


def jumprelus(words, sizes):
    """Print times of the JumpReLU step, at the start and where few gates are open."""
    sizes = {**sizes, "B": max(1, sizes["B"] // 4)}  # dense arrays have B x F x S numbers
    for share, what in ((None, "as it starts"), (0.01, "1 % of gates open")):
        print(f"\n| JumpReLU step, {what}, B={sizes['B']} | ms | time over ours (range) |")
        print("|---|---|---|", flush=True)
        rows(*measure(jumprelu(share), sizes, max(2, words.rounds // 2), warmup=1))


def growth(words, sizes):
    """Print how the step grows with each size."""
    print("\n| ours at | ms | over our product | dense over ours |\n|---|---|---|---|")
    factors = (("F", 4), ("F", 2), ("F", 0.5), ("k", 2), ("k", 0.5), ("S", 2), ("S", 0.5),
               ("S", 0.125), ("B", 0.25))  # fmt: skip
    changes = [{}, *({name: max(1, int(sizes[name] * factor))} for name, factor in factors), SMALL]
    own = "encoder product alone, ours"
    for change in changes:
        ways = {name: WAYS[name] for name in (OURS, own, DENSE)}
        found, _ = measure(ways, {**sizes, **change}, max(3, words.rounds // 2), warmup=2)
        mine, product, dense = (statistics.median(found[name]) for name in ways)
        where = ", ".join(f"{n}={v}" for n, v in (change or sizes).items())
        print(f"| {where} | {1e3 * mine:.3g} | {mine / product:.2f} | {dense / mine:.2f} |")


def loss(words, sizes):
    """Print the share of variance left after equal tokens, by way."""
    import torch

    data = batches(sizes, 40)
    held_out = data.pop()
    total = (held_out - held_out.mean(0)).square().sum()
    print(f"\n| way | variance left after {words.loss_steps * sizes['B']} tokens |\n|---|---|")
    for name in (each for each in WAYS if "product" not in each):
        try:
            step, forward = WAYS[name](sizes, data[0], 1e-3)
        except Exception as error:
            print(f"| {name} | not run: {error!r} |")
            continue
        for i in range(words.loss_steps):
            step(data[i % len(data)])
        with torch.no_grad():
            left = (forward(held_out) - held_out).square().sum() / total
        print(f"| {name} | {float(left):.4f} |", flush=True)


def snapshots_and_tokens():
    """Return 8 small models, and tokens for them."""
    import numpy as np
    import torch
    from torch import nn

    from meristem_crosscoders import SnapshotSet

    class Model(nn.Module):
        def __init__(self, seed):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.embed = nn.Embedding(512, 128)
                self.blocks = nn.Sequential(*[nn.Linear(128, 128) for _ in range(8)])

        def forward(self, tokens):
            return self.blocks(self.embed(tokens))

    tokens = np.random.default_rng(0).integers(0, 512, (256, 128))
    return SnapshotSet.from_modules({s: Model(s) for s in range(8)}, "blocks"), tokens


def harvest(words, sizes):
    """Print how long training on a harvest takes beside its two halves, one by one."""
    import torch

    from meristem_crosscoders import Harvest, TrainConfig, train

    print("\n| threads of each side | harvest alone | training alone | overlapped | over their sum "
          "| over the larger |\n|---|---|---|---|---|---|")  # fmt: skip
    source = Harvest(*snapshots_and_tokens(), batch_tokens=1024, window_tokens=4096)
    source = source.normalised(source.estimate_normalisation(tokens=4096))
    config = TrainConfig(steps=len(source), penalty="none")
    sizes = {"B": 1024, "S": 8, "d": 128, "F": 2048, "k": 32}
    cores = torch.get_num_threads()
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        found = {"harvest": [], "training": [], "both": []}
        for _ in range(max(3, words.rounds // 2)):
            begin = time.perf_counter()
            kept = list(source())
            found["harvest"].append(time.perf_counter() - begin)
            for name, given in (("training", lambda s, k=kept: iter(k[s:])), ("both", source)):
                crosscoder = start(sizes, kept[0])
                begin = time.perf_counter()
                train(crosscoder, given, config)
                found[name].append(time.perf_counter() - begin)
        a, b, c = (statistics.median(each) for each in found.values())
        print(f"| {threads} | {a:.2f} s | {b:.2f} s | {c:.2f} s | {c / (a + b):.2f} "
              f"| {c / max(a, b):.2f} |", flush=True)  # fmt: skip
    torch.set_num_threads(cores)


def arguments():
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", action="store_true", help="make the environment of the peers")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--loss-steps", type=int, default=60)
    parser.add_argument("--crosscoder-learning", metavar="DIR", help="a checkout")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    for name, size in (("B", 1024), ("S", 16), ("d", 128), ("F", 4096), ("k", 32)):
        parser.add_argument(f"--{name}", type=int, default=size)
    return parser.parse_args()


def title(sizes):
    """Print date, machine and versions."""
    import torch

    installed = []
    for name in ("torch", *PACKAGES):
        try:
            installed.append(f"{name} {version(name)}")
        except ModuleNotFoundError:
            installed.append(f"{name} absent")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {torch.get_num_threads()} threads, {platform.machine()} "
          f"with {torch.backends.cpu.get_cpu_capability()}, {', '.join(installed)}")  # fmt: skip
    print(", ".join(f"{name}={value}" for name, value in sizes.items()))


def main():
    """Measure what is asked for and print Markdown tables."""
    words = arguments()
    if words.install:
        install()
        return
    python = PEERS / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != PEERS.resolve():
        os.execv(python, [str(python), *sys.argv])
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    if words.crosscoder_learning:
        WAYS.update(batchtopk(words.crosscoder_learning))
    sizes = {name: getattr(words, name) for name in "BSdFk"}
    if words.quick:
        sizes, words.rounds, words.loss_steps = SMALL, 3, 20
    if words.alone:
        alone(words.alone, sizes)
        return
    title(sizes)
    tables = dict(zip(PARTS, (topk, memory, jumprelus, growth, loss, harvest), strict=True))
    for part in words.parts:
        tables[part](words, sizes)


if __name__ == "__main__":
    main()
