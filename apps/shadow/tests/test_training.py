import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from meristem_core.command import UsageError  # noqa: E402
from meristem_shadow.__main__ import main  # noqa: E402
from meristem_shadow._follow import _growing, _pull, _push, follow  # noqa: E402
from meristem_shadow._memory import check_memory, needed_bytes  # noqa: E402
from meristem_shadow._optimiser import BETAS, DECAY, EPSILON, WARM_UP, load_model, optimiser_of  # noqa: E402

STEPS = 8
# torch's forward mode still compiles its own decompositions with what torch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def load(grown, snapshot=0, steps=STEPS):
    model, _ = load_model(grown, snapshot)
    return optimiser_of(model, grown, steps=steps, sequences=2, length=12, lr=1e-2, seed=0)


@pytest.fixture(scope="module")
def start(grown):
    return load(grown)


def silent(done, total, metrics):
    assert 0 < done <= total


def exact(optimiser, state):
    states = [state]
    for t in range(STEPS):
        states.append(optimiser.step(states[-1], t))
    return torch.stack(states)


def test_the_map_is_torch_adamw(grown):
    optimiser, state = load(grown, snapshot=10)
    named = dict(optimiser.model.named_parameters())
    theta = torch.cat([named[name].detach().flatten() for name in optimiser.names])
    parameter = torch.nn.Parameter(theta.clone())
    adam = torch.optim.AdamW([parameter], lr=1e-2, betas=BETAS, eps=EPSILON, weight_decay=0.0)
    for t in range(WARM_UP):
        adam.zero_grad()
        optimiser.loss(parameter, optimiser.batches[t]).backward()
        parameter.grad *= (1 / parameter.grad.norm()).clamp(max=1)
        with torch.no_grad():
            parameter -= 1e-2 * DECAY * optimiser.decay * parameter
        adam.step()
    assert torch.allclose(state[: len(theta)], parameter.detach(), rtol=0, atol=1e-10)


def test_derivatives_and_their_transposes_agree(start):
    optimiser, state = start
    draw = torch.Generator().manual_seed(1)
    V = torch.randn(len(state), 2, generator=draw, dtype=state.dtype) * 1e-2
    W = torch.randn(len(state), 2, generator=draw, dtype=state.dtype) * 1e-2
    forward, back = _push(optimiser, state, V, 0), _pull(optimiser, state, W, 0)
    assert torch.allclose(W.T @ forward, back.T @ V, rtol=1e-8)
    P, h = len(state) // 3, 1e-7
    along = torch.cat([V[:P, 0], torch.zeros(2 * P, dtype=state.dtype)])
    slope = (optimiser.step(state + h * along, 0) - optimiser.step(state - h * along, 0)) / (2 * h)
    pushed = _push(optimiser, state, along[:, None], 0)[:, 0]
    assert (slope - pushed).norm() < 1e-4 * pushed.norm()


def test_an_exact_trajectory_is_its_own_shadow(start):
    optimiser, state = start
    found = follow(optimiser, exact(optimiser, state), directions=2, progress=silent)
    assert found.shadow.max() == 0
    assert found.errors.max() == 0
    assert found.moved == 0


def test_a_planted_displacement_of_the_start_is_undone(start):
    optimiser, state = start
    given = exact(optimiser, state)
    V, growth = _growing(optimiser, given, 4, lambda: None)
    assert growth[0] >= growth[-1] > 0
    given[0] += 1e-5 * V[:, 0]
    found = follow(optimiser, given, directions=4, progress=silent)
    assert found.shadow[1:].norm() < 0.2 * found.same_start[1:].norm()
    assert found.moved == pytest.approx(1e-5, rel=0.3)


@pytest.mark.parametrize("rounding", ["bfloat16", "float32", "reordered"])
def test_the_command_reports_how_closely_training_is_followed(grown, tmp_path, rounding, capsys):
    options = f"--steps 5 --directions 2 --tokens 12 --sequences 2 --rounding {rounding}".split()
    assert main(["training", str(grown), *options, "--out", str(tmp_path / "run")]) == 0
    assert "exhibited, not certified" in capsys.readouterr().out
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert np.linalg.norm(result["shadow"]) <= np.linalg.norm(result["same_start"])
    limit = 1 if rounding == "bfloat16" else 1e-3
    assert 0 < max(result["errors"]) < limit * result["travelled"][-1]
    assert "is not exact arithmetic" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--snapshot", "7"], r"no snapshot of step 7; it has \[0, 10\]"),
        (["--steps", "0"], "at least 1"),
        (["--lr", "2"], "between 0 and 1"),
        (["--tokens", "600"], "500 training tokens"),
        (
            ["--steps", "1000000000"],
            r"--directions 6: with \S+ parameters they need .* free; take --steps \d+ or a smaller",
        ),
    ],
)
def test_a_bad_value_is_named(grown, tmp_path, words, complaint):
    with pytest.raises(UsageError, match=complaint):
        main(["training", str(grown), *words, "--out", str(tmp_path / "run")])


def test_the_need_is_said_and_holds(grown, tmp_path, capsys):
    words = ["training", str(grown), *["--steps", "2", "--directions", "1", "--tokens", "12"]]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "states need about 0.00 GiB" in capsys.readouterr().err
    parameters = json.loads((tmp_path / "run/result.json").read_text())["parameters"]
    assert needed_bytes(parameters, 101, 6) - needed_bytes(parameters, 1, 6) == 1200 * parameters
    check_memory(parameters, 100, 6)
    with pytest.raises(UsageError, match="fewer --directions"):
        check_memory(10**13, 10, 6)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no pretrain/snapshots"):
        main(["training", str(tmp_path), "--out", str(tmp_path / "run")])
