"""Time and memory of a training step against other libraries, on the same batches.

    python packages/crosscoders/benchmarks/train_step.py --install   # once: makes benchmarks/.peers
    python packages/crosscoders/benchmarks/train_step.py

The second command runs in that environment: ours, a plain dense TopK with fused Adam, eai-sparsify,
sae-lens and dictionary-learning on snapshots laid side by side, and the encoder's product alone as
the floor. Steps are interleaved; a ratio is the median over rounds of their time over ours.
`--quick` uses small sizes. Equal tokens: the share of variance left after `--loss-steps` steps.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
PACKAGES = ("eai-sparsify", "sae-lens", "dictionary-learning")
OURS, FLOOR, DENSE = "ours", "encoder product alone", "dense TopK, fused Adam"


def install():
    """Make the environment of the peers; dictionary-learning without its old pins."""
    root = HERE.parents[2]
    torch = version("torch").split("+")[0]
    ours = ["-e", f"{root}/packages/core[torch]", "-e", f"{root}/packages/crosscoders"]
    into = ["uv", "pip", "install", "--python", str(PEERS / "bin" / "python")]
    subprocess.run(
        ["uv", "venv", "--allow-existing", "--python", sys.executable, PEERS], check=True
    )
    subprocess.run([*into, f"torch=={torch}", *PACKAGES[:2], "nnsight", *ours], check=True)
    subprocess.run([*into, "--no-deps", PACKAGES[2]], check=True)


def batches(sizes, count):
    """Return batches (B, S, D) of sparse concepts that turn with the snapshots, of norm sqrt(D)."""
    import torch

    B, S, D = sizes["B"], sizes["S"], sizes["d"]
    g = torch.Generator().manual_seed(0)
    n = 4 * D
    start, end = torch.randn(2, n, D, generator=g)
    turn = torch.linspace(0, 1, S)[None, :, None]
    directions = (1 - turn) * start[:, None] + turn * end[:, None]
    found = []
    for _ in range(count):
        size = torch.rand(B, n, generator=g) * (torch.rand(B, n, generator=g) < 24 / n)
        x = torch.einsum("bn,nsd->bsd", size, directions)
        x += 0.05 * torch.randn(B, S, D, generator=g)
        found.append(x * (D**0.5 / x.norm(dim=-1).mean()))
    return found


def config_of(sizes, **fields):
    """Return the crosscoder's configuration."""
    from meristem_crosscoders import CrosscoderConfig

    fields = fields or {"activation": "topk", "k": sizes["k"], "gate": "shared"}
    return CrosscoderConfig(
        d_model=sizes["d"], n_features=sizes["F"], steps=tuple(range(sizes["S"])), **fields
    )


def start(sizes, batch, **fields):
    """Return the crosscoder before training."""
    from meristem_crosscoders import Crosscoder, initialise

    crosscoder = Crosscoder(config_of(sizes, **fields))
    initialise(crosscoder, batch[:64])
    return crosscoder.train()


def ours(sizes, batch, lr, penalty="none", **fields):
    """Return our step and how much variance it leaves."""
    from meristem_crosscoders import TrainConfig
    from meristem_crosscoders._mesh import Mesh
    from meristem_crosscoders._run import Run

    crosscoder = start(sizes, batch, **fields)
    config = TrainConfig(steps=10**6, lr=lr, warmup=0.0, penalty=penalty)
    run, done = Run(crosscoder, config, Mesh(), lambda step: iter(())), iter(range(10**6))
    return lambda x: run.step(next(done), x), crosscoder


def dense(sizes, batch, lr, **fields):
    """Return the step of the same crosscoder by automatic differentiation of dense arrays."""
    import torch

    crosscoder, k = start(sizes, batch, **fields), sizes["k"]
    optimizer = torch.optim.Adam(crosscoder.parameters(), lr=lr, fused=True)
    shape = sizes["F"], sizes["S"] * sizes["d"]

    def forward(x):
        z = torch.addmm(crosscoder.b_enc, x.flatten(1), crosscoder.W_enc.view(shape).T)
        top = (z * crosscoder.norms().sum(1).detach()).topk(k, dim=1)
        f = torch.zeros_like(z).scatter(1, top.indices, z.gather(1, top.indices).relu())
        return (f @ crosscoder.W_dec.view(shape)).view_as(x) + crosscoder.b_dec

    def step(x):
        optimizer.zero_grad()
        ((forward(x) - x).square().sum(-1).mean()).backward()
        optimizer.step()

    return step, forward


def dense_jumprelu(sizes, batch, lr):
    """Return the step of the dense definition with a gate per snapshot: arrays of B x F x S."""
    import torch

    from meristem_crosscoders import reconstruction_error, strengths, tanh_quad_penalty

    crosscoder = start(sizes, batch, activation="jumprelu")
    optimizer = torch.optim.Adam(crosscoder.parameters(), lr=lr, fused=True)

    def step(x):
        optimizer.zero_grad()
        codes = crosscoder.encode(x)
        loss = reconstruction_error(crosscoder.decode(codes.value), x)
        (loss + 1e-9 * tanh_quad_penalty(strengths(crosscoder, codes))).backward()
        optimizer.step()

    return step, crosscoder


def sparsify(sizes, batch, lr):
    """Return the step of eai-sparsify, with the projections its trainer makes."""
    import torch
    from sparsify import SparseCoder, SparseCoderConfig

    D = sizes["S"] * sizes["d"]
    coder = SparseCoder(D, SparseCoderConfig(num_latents=sizes["F"], k=sizes["k"]))
    optimizer = torch.optim.Adam(coder.parameters(), lr=lr, fused=True)

    def step(x):
        optimizer.zero_grad()
        coder(x.flatten(1)).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        coder.set_decoder_norm_to_unit_norm()

    return step, lambda x: coder(x.flatten(1)).sae_out.view_as(x)


def sae_lens(sizes, batch, lr):
    """Return the step of sae-lens with its default sparse activations."""
    import torch
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    D = sizes["S"] * sizes["d"]
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D, d_sae=sizes["F"], k=sizes["k"]))
    optimizer = torch.optim.Adam(sae.parameters(), lr=lr, fused=True)

    def step(x):
        optimizer.zero_grad()
        given = TrainStepInput(
            sae_in=x.flatten(1), coefficients={}, dead_neuron_mask=None, n_training_steps=1,
            is_logging_step=False,
        )  # fmt: skip
        sae.training_forward_pass(given).loss.backward()
        optimizer.step()

    return step, lambda x: sae(x.flatten(1)).view_as(x)


def dictionary_learning(sizes, batch, lr):
    """Return the step of dictionary-learning's trainer."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    D = sizes["S"] * sizes["d"]
    trainer = TopKTrainer(
        steps=10**6, activation_dim=D, dict_size=sizes["F"], k=sizes["k"], layer=0, lm_name="none",
        lr=lr, warmup_steps=0, decay_start=None, seed=0, device="cpu",
    )  # fmt: skip
    done = iter(range(1, 10**6))  # step 0 computes a geometric median
    return lambda x: trainer.update(next(done), x.flatten(1)), lambda x: trainer.ae(
        x.flatten(1)
    ).view_as(x)


def floor(sizes, batch, lr):
    """Return the encoder's product, which any exact float32 form computes."""
    import torch

    rows = torch.randn(sizes["F"], sizes["S"] * sizes["d"])
    return lambda x: x.flatten(1) @ rows.T, None


WAYS = {
    OURS: ours,
    FLOOR: floor,
    DENSE: dense,
    "eai-sparsify": sparsify,
    "sae-lens": sae_lens,
    "dictionary-learning": dictionary_learning,
}
JUMPRELU = {
    OURS: lambda s, b, lr: ours(s, b, lr, penalty="tanh_quad", activation="jumprelu"),
    "dense JumpReLU, fused Adam": dense_jumprelu,
}


def peak(pages=resource):
    """Return the largest resident set of this process so far, MiB."""
    return pages.getrusage(pages.RUSAGE_SELF).ru_maxrss / 1024


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


def memory_of(name, sizes):
    """Return MiB that 4 steps of one way need, in a fresh process."""
    words = [sys.executable, __file__, "--alone", name]
    words += [f"--{key}={value}" for key, value in sizes.items()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else "-"


def alone(name, sizes):
    """Print the memory that one way needs: with batches and imports subtracted."""
    data = batches(sizes, 4)
    tiny = {**sizes, "F": 256, "S": 1, "d": 16, "B": 32}
    step, _ = WAYS[name](tiny, batches(tiny, 1)[0], 1e-3)
    step(batches(tiny, 1)[0])  # loads what is loaded at first use
    before = peak()
    step, _ = WAYS[name](sizes, data[0], 1e-3)
    for x in data:
        step(x)
    print(f"{peak() - before:.0f}")


def losses(sizes, steps):
    """Print the share of variance left after equal tokens, by way."""
    import torch

    data = batches(sizes, 40)
    held_out = data.pop()
    total = (held_out - held_out.mean(0)).square().sum()
    print(f"\n| way | variance left after {steps * sizes['B']} tokens |\n|---|---|")
    for name in (OURS, DENSE, "eai-sparsify", "sae-lens", "dictionary-learning"):
        try:
            step, forward = WAYS[name](sizes, data[0], 1e-3)
        except Exception as error:
            print(f"| {name} | not run: {error!r} |")
            continue
        for i in range(steps):
            step(data[i % len(data)])
        with torch.no_grad():
            left = (forward(held_out) - held_out).square().sum() / total
        print(f"| {name} | {float(left):.4f} |")


def harvest(rounds):
    """Print how much longer training on a harvest takes than its two halves need one by one."""
    import torch
    from torch import nn

    from meristem_crosscoders import Harvest, SnapshotSet, TrainConfig, train

    class Model(nn.Module):
        def __init__(self, seed):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.embed = nn.Embedding(512, 128)
                self.blocks = nn.Sequential(*[nn.Linear(128, 128) for _ in range(8)])

        def forward(self, tokens):
            return self.blocks(self.embed(tokens))

    import numpy as np

    snapshots = SnapshotSet.from_modules({s: Model(s) for s in range(8)}, "blocks")
    tokens = np.random.default_rng(0).integers(0, 512, (256, 128))
    source = Harvest(snapshots, tokens, batch_tokens=1024, window_tokens=4096)
    source = source.normalised(source.estimate_normalisation(tokens=4096))
    sizes = {"B": 1024, "S": 8, "d": 128, "F": 2048, "k": 32}
    config = TrainConfig(steps=len(source), penalty="none")
    found = {"harvest alone": [], "training alone": [], "both": []}
    for _ in range(rounds):
        begin = time.perf_counter()
        kept = list(source())
        found["harvest alone"].append(time.perf_counter() - begin)
        for name, given in (("training alone", lambda s, k=kept: iter(k[s:])), ("both", source)):
            crosscoder = start(sizes, kept[0])
            begin = time.perf_counter()
            train(crosscoder, given, config)
            found[name].append(time.perf_counter() - begin)
    a, b, c = (statistics.median(each) for each in found.values())
    print("\n| harvest alone | training alone | overlapped | over their sum | over the larger |")
    print("|---|---|---|---|---|")
    print(f"| {a:.2f} s | {b:.2f} s | {c:.2f} s | {c / (a + b):.2f} | {c / max(a, b):.2f} |")


def main():
    """Measure what is asked for and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", action="store_true", help="make the environment of the peers")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--loss-steps", type=int, default=60)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    for name, size in (("B", 1024), ("S", 16), ("d", 128), ("F", 4096), ("k", 32)):
        parser.add_argument(f"--{name}", type=int, default=size)
    words = parser.parse_args()
    if words.install:
        install()
        return
    python = PEERS / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != PEERS.resolve():
        os.execv(python, [str(python), *sys.argv])
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    import torch

    sizes = {name: getattr(words, name) for name in "BSdFk"}
    if words.quick:
        sizes, words.rounds, words.loss_steps = {"B": 128, "S": 4, "d": 32, "F": 512, "k": 8}, 3, 20
    if words.alone:
        alone(words.alone, sizes)
        return
    seconds, absent = measure(WAYS, sizes, words.rounds)
    installed = []
    for name in ("torch", *PACKAGES):
        try:
            installed.append(f"{name} {version(name)}")
        except ModuleNotFoundError:
            installed.append(f"{name} absent")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {torch.get_num_threads()} threads, {platform.machine()}, "
          f"{', '.join(installed)}")  # fmt: skip
    print(", ".join(f"{name}={value}" for name, value in sizes.items()))
    print("\n| TopK step | ms | time over ours (range) |\n|---|---|---|", flush=True)
    rows(seconds, absent)
    print("\n| 4 steps | MiB above imports and batches |\n|---|---|", flush=True)
    for name in (each for each in seconds if each != FLOOR):
        print(f"| {name} | {memory_of(name, sizes)} |", flush=True)
    few = max(2, words.rounds // 3)
    jump = {**sizes, "B": max(1, sizes["B"] // 4)}
    print(f"\n| JumpReLU step, a gate per snapshot, B={jump['B']} | ms | time over ours (range) |")
    print("|---|---|---|")
    rows(*measure(JUMPRELU, jump, few, warmup=1))
    print("\n| ours at | ms | over the encoder product |\n|---|---|---|")
    factors = (("F", 2), ("F", 0.5), ("k", 2), ("k", 0.5), ("S", 0.5), ("S", 0.25))
    for change in ({name: int(sizes[name] * factor)} for name, factor in factors):
        found, _ = measure({OURS: ours, FLOOR: floor}, {**sizes, **change}, few, warmup=2)
        mine, product = (statistics.median(found[name]) for name in (OURS, FLOOR))
        where = ", ".join(f"{name}={value}" for name, value in change.items())
        print(f"| {where} | {1e3 * mine:.0f} | {mine / product:.2f} |")
    losses(sizes, words.loss_steps)
    harvest(2 if words.quick else 3)


if __name__ == "__main__":
    main()
