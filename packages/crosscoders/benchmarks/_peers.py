"""A training step of ours and of each peer: functions of sizes, a batch and a learning rate.

Each returns the step and a function for the reconstruction. Peers without crosscoders get the
snapshots laid side by side; those with crosscoders get (tokens, snapshots, width).
"""

import contextlib
import math
import sys

OURS, DENSE = "ours", "dense TopK, fused Adam"
FLOOR = "encoder product alone, torch.mm"


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


def ours(sizes, batch, lr, penalty="none", share=None, **fields):
    """Return our step; `share` of the gates are open at the start, by their thresholds."""
    import torch

    from meristem_crosscoders import TrainConfig
    from meristem_crosscoders._mesh import Mesh
    from meristem_crosscoders._run import Run

    crosscoder = start(sizes, batch, **fields)
    if share is not None:
        with torch.no_grad():
            u = (crosscoder.preactivations(batch) * crosscoder.norms()[:, 0]).flatten()
            bar = u.kthvalue(round((1 - share) * len(u))).values
            crosscoder.log_threshold.fill_(float(bar.log()))
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


def llamascopium(sizes, batch, lr, act_fn="topk", **loss):
    """Return the step of Llamascopium's crosscoder, with a gate per snapshot, from our start."""
    import torch
    from llamascopium.models.crosscoder import Crosscoder, CrosscoderConfig

    hooks = [f"snapshot {s}" for s in range(sizes["S"])]
    config = CrosscoderConfig(
        d_model=sizes["d"], expansion_factor=sizes["F"] / sizes["d"], hook_points=hooks,
        act_fn=act_fn, top_k=sizes["k"], jumprelu_threshold_window=4.0, device="cpu",
        dtype=torch.float32,
    )  # fmt: skip
    crosscoder = Crosscoder(config)
    crosscoder.init_parameters(
        encoder_uniform_bound=1.0, decoder_uniform_bound=1.0,
        init_log_jumprelu_threshold_value=math.log(0.1),
    )  # fmt: skip
    given = {"activation": act_fn, "k": sizes["k"] if act_fn == "topk" else None}
    equal = start(sizes, batch, gate="snapshot", **given)
    with torch.no_grad():
        crosscoder.W_E.copy_(equal.W_enc.permute(1, 2, 0))
        crosscoder.W_D.copy_(equal.W_dec.permute(1, 0, 2))
    del equal
    optimizer = torch.optim.Adam(crosscoder.parameters(), lr=lr, fused=True)

    def step(x):
        optimizer.zero_grad()
        given = dict(zip(hooks, x.unbind(1), strict=True))
        crosscoder.compute_loss(given, return_aux_data=False, **loss).backward()
        optimizer.step()

    return step, crosscoder


def crosscoder_learning(folder):
    """Return the way of crosscoder_learning's BatchTopK trainer, from a checkout."""

    def way(sizes, batch, lr):
        with own_names(folder, "dictionary_learning"):
            from dictionary_learning.trainers.crosscoder import BatchTopKCrossCoderTrainer

            trainer = BatchTopKCrossCoderTrainer(
                steps=10**6, activation_dim=sizes["d"], dict_size=sizes["F"], k=sizes["k"],
                layer=0, lm_name="none", num_layers=sizes["S"], lr=lr, warmup_steps=0, seed=0,
                device="cpu",
            )  # fmt: skip
        done = iter(range(1, 10**6))  # step 0 computes a geometric median
        ae = trainer.ae  # its `forward` takes the threshold, which is unknown before step 1,000
        return lambda x: trainer.update(next(done), x), lambda x: ae.decode(
            ae.encode(x, use_threshold=False)
        )

    return way


@contextlib.contextmanager
def own_names(folder, package):
    """Import `package` from a folder, and forget it, so that another of that name can be used."""

    def taken():
        names = [name for name in sys.modules if name.split(".")[0] == package]
        return {name: sys.modules.pop(name) for name in names}

    others = taken()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        taken()
        sys.modules.update(others)


def floor(sizes, batch, lr):
    """Return the encoder's product as PyTorch computes it by itself."""
    import torch

    rows = torch.randn(sizes["F"], sizes["S"] * sizes["d"])
    return lambda x: x.flatten(1) @ rows.T, None


def own_floor(sizes, batch, lr):
    """Return the encoder's product as we compute it."""
    import torch

    from meristem_crosscoders._products import rows_product

    rows = torch.randn(sizes["F"], sizes["S"] * sizes["d"])
    return lambda x: rows_product(x.flatten(1), rows), None


WAYS = {
    OURS: ours,
    "encoder product alone, ours": own_floor,
    FLOOR: floor,
    DENSE: dense,
    "eai-sparsify": sparsify,
    "sae-lens": sae_lens,
    "dictionary-learning": dictionary_learning,
    "Llamascopium, a gate per snapshot": llamascopium,
}


def batchtopk(folder):
    """Return our BatchTopK and that of the checkout of crosscoder_learning in a folder."""
    return {
        "ours, BatchTopK": lambda s, b, lr: ours(
            s, b, lr, activation="batchtopk", k=s["k"], gate="shared"
        ),
        "crosscoder_learning, BatchTopK": crosscoder_learning(folder),
    }


def jumprelu(share):
    """Return the ways to train JumpReLU with a gate per snapshot and the tanh-quad penalty."""
    return {
        OURS: lambda s, b, lr: ours(
            s, b, lr, penalty="tanh_quad", share=share, activation="jumprelu"
        ),
        "dense JumpReLU, fused Adam": dense_jumprelu,
        "Llamascopium, plain tanh penalty": lambda s, b, lr: llamascopium(
            s, b, lr, act_fn="jumprelu", sparsity_loss_type="tanh", l1_coefficient=1e-9
        ),  # of a crosscoder its tanh-quad penalty raises
    }
