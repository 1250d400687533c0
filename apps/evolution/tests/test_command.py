"""The command from end to end on snapshots that were really trained."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from meristem_core.command import run_command
from meristem_evolution._checkpoints import default_site, find_source
from meristem_evolution._command import main
from meristem_evolution._text import byte_letters, read_rows, split_rows, token_bytes

SMALL = [
    "--features", 48, "--tokens", 6000, "--batch", 128, "--analysis-tokens", 2000,
    "--context", 32, "--contexts", 3, "--pairs", 16, "--activation", "batchtopk", "--k", 6,
    "--learning-rate", 5e-3,
]  # fmt: skip


def evolution(*words: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "meristem_evolution", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {name: str(value) for name, value in environment.items()},
    )


@pytest.fixture
def here(capsys):
    """Return a function that runs the command in this process, without the imports' seconds."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        code = run_command(main, list(map(str, words)), name="meristem-evolution")
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def run(grown, tmp_path_factory):
    """Return a finished run and what the command said."""
    out = tmp_path_factory.mktemp("evolution") / "run"
    done = evolution(
        "--checkpoints", grown.snapshots, "--corpus", grown.corpus, "--out", out, *SMALL
    )
    assert done.returncode == 0, done.stderr
    return out, done


def test_it_says_what_it_found(run):
    out, done = run
    lines = done.stdout.splitlines()
    assert lines[0].startswith("features: ")
    assert lines[-1] == f"explorer: {out / 'explorer.html'}"
    assert "model.layers.0" in done.stderr


def test_the_result_is_consistent(run, grown):
    out, _ = run
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == "meristem-evolution/1"
    measured = result["measured"]
    assert measured["steps"] == list(grown.steps)
    S = len(grown.steps)
    for threshold, kinds in measured["kinds"].items():
        assert sum(kinds.values()) == 48
        assert sum(measured["emergence"][threshold]) == 48 - kinds["dead"] == measured["alive"]
    assert len(measured["explained_variance"]) == len(measured["l0"]) == S
    assert max(measured["explained_variance"]) > 0.2, "it learned something"
    assert all(0 < each <= 1 for each in measured["dimensionality"])
    learning = measured["learning"]
    assert learning["loss"][-1] < learning["loss"][0] - 0.5, "the snapshots were trained"
    names = [task["name"] for task in result["attributed"]["tasks"]]
    assert "induction" in names
    for task in result["attributed"]["tasks"]:
        for shares in filter(None, (task["restore"], task["ablate"])):
            ends = [shares["faithfulness"][0], shares["faithfulness"][-1]]
            np.testing.assert_allclose(sorted(ends), [0, 1], atol=1e-3)


def test_the_crosscoder_can_be_loaded_and_reads_what_models_give(run, grown):
    import torch

    from meristem_crosscoders import SnapshotSet, find_snapshots, load_crosscoder

    out, _ = run
    crosscoder = load_crosscoder(out / "fit" / "crosscoder.safetensors")
    snapshots = SnapshotSet.from_dirs(find_snapshots(grown.snapshots), "model.layers.0")
    rows = torch.from_numpy(np.load(out / "text" / "held.npy").astype(np.int64))
    x = snapshots.activations(rows)[:, 1:].flatten(0, 1)
    error = (crosscoder(x) - x).square().sum()
    assert error < 0.6 * (x - x.mean(0)).square().sum()


@pytest.mark.browser
def test_the_page_shows_the_run(run, open_page):
    out, _ = run
    measured = json.loads((out / "result.json").read_text())["measured"]
    with open_page(out / "explorer.html") as page:
        page.wait_for_selector("html[data-ready=yes]")
        shown = page.locator("#counts button").all_text_contents()
        assert list(map(int, shown)) == list(measured["kinds"]["0.5"].values())
        titles = page.locator("#overview .given figcaption").all_text_contents()
        assert titles[:2] == ["Dimensionality", "Distance to n-grams"]
        page.get_by_role("tab", name="Tasks").click()
        assert page.locator("#tasks figure").count() >= 2
        page.keyboard.press("2")
        page.keyboard.press("j")
        assert page.locator("#pane .contexts .on").count() > 0, "it fires in its contexts"


def test_a_finished_run_is_not_run_again(run, grown, here):
    out, first = run
    before = (out / "result.json").read_bytes()
    again = here("--checkpoints", grown.snapshots, "--corpus", grown.corpus, "--out", out, *SMALL)
    assert again.stdout == first.stdout
    assert again.stderr.count("finished before") == 4
    assert (out / "result.json").read_bytes() == before


def test_the_result_can_be_printed(run, grown, here):
    out, _ = run
    words = ["--checkpoints", grown.snapshots, "--corpus", grown.corpus, "--out", out, *SMALL]
    done = here(*words, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((out / "result.json").read_text())


def _as_hub_cache(grown, cache: Path) -> None:
    """Lay the snapshots out as the hub's client keeps the revisions of a repository."""
    repository = cache / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    for step in grown.steps:
        commit = f"{step:040x}"
        shutil.copytree(grown.snapshots / f"step-{step}", repository / "snapshots" / commit)
        (repository / "refs" / f"step{step}").write_text(commit)


@pytest.mark.slow
def test_revisions_of_the_hub_give_what_their_folders_give(run, grown, tmp_path):
    out, _ = run
    _as_hub_cache(grown, tmp_path / "hub")
    revisions = ",".join(f"step{step}" for step in grown.steps)
    words = ["--corpus", grown.corpus, "--out", tmp_path / "run", *SMALL]
    offline = {"HF_HUB_CACHE": tmp_path / "hub", "HF_HUB_OFFLINE": 1}
    done = evolution("--checkpoints", f"hub:someone/small@{revisions}", *words, **offline)
    assert done.returncode == 0, done.stderr
    whole, hub = (
        json.loads((folder / "result.json").read_text()) for folder in (out, tmp_path / "run")
    )
    assert hub["config"]["checkpoints"].startswith("hub:")
    assert {**whole, "config": 0, "seconds": 0} == {**hub, "config": 0, "seconds": 0}
    other = ["--checkpoints", "hub:someone/small@step0,step9,step160", "--corpus", grown.corpus]
    done = evolution(*other, "--out", tmp_path / "other", *SMALL, **offline)
    assert done.returncode == 2
    assert "revision 'step9' of 'someone/small' cannot be had" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_killed_in_training_ends_the_same(run, grown, tmp_path):
    out, _ = run
    words = ["--checkpoints", grown.snapshots, "--corpus", grown.corpus, "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "meristem_evolution", *map(str, [*words, *SMALL])]
    checkpoints = tmp_path / "run" / "fit" / "checkpoints"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list(checkpoints.glob("step-*"))) < 2 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / "fit" / "stage.json").exists(), "it was killed too late"
    assert evolution(*words, *SMALL).returncode == 0
    whole, resumed = (
        json.loads((folder / "result.json").read_text()) for folder in (out, tmp_path / "run")
    )
    assert {**whole, "seconds": 0} == {**resumed, "seconds": 0}
    both = [folder / "fit" / "crosscoder.safetensors" for folder in (out, tmp_path / "run")]
    assert both[0].read_bytes() == both[1].read_bytes()
    records, kept = (
        (folder / "fit" / "metrics.jsonl").read_text().splitlines()
        for folder in (out, tmp_path / "run")
    )
    missing = [line for line in records if line not in kept]
    assert set(kept) <= set(records)
    assert len(missing) <= 1, "only a kill between a checkpoint and its record loses that one"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", 2], "--features (2) must be at least 8"),
        (["--sparsity", -1], "--sparsity (-1.0) must be positive"),
        (["--k", 99], "--k (99) must be at most --features (48)"),
        (["--tasks", "nowhere.jsonl"], "--tasks nowhere.jsonl not found"),
        (["--site", "model.layer.0"], "the nearest are model.layers.0"),
        (["--device", "teapot"], "--device teapot cannot be used"),
        (["--features", 2**36], "--features 68719476736: training needs 345600.0 GiB"),
    ],
)
def test_a_bad_value_ends_with_two_and_one_line(grown, tmp_path, here, words, message):
    base = ["--checkpoints", grown.snapshots, "--corpus", grown.corpus, "--out", tmp_path / "run"]
    done = here(*base, *SMALL, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.rstrip("\n").splitlines()[-1].startswith("meristem-evolution: ")
    assert not (tmp_path / "run" / "text").exists(), "the corpus is not read before"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "--checkpoints nowhere not found"),
        ("hub:a/b", "names no revision"),
        ("hub:a/b@main", "revision main does not end with its step"),
    ],
)
def test_checkpoints_that_cannot_be_found(source, message):
    from meristem_core.command import UsageError

    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        find_source(source)


def test_another_config_is_refused_and_nothing_is_touched(run, grown, here):
    out, _ = run
    before = (out / "result.json").read_bytes()
    words = ["--checkpoints", grown.snapshots, "--corpus", grown.corpus, "--out", out]
    done = here(*words, *SMALL, "--seed", 7)
    assert done.returncode == 2
    assert "seed is 0 there and 7 here" in done.stderr
    assert (out / "result.json").read_bytes() == before


def test_help_is_quick_and_brings_no_torch():
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "meristem_evolution", "--help"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert "--checkpoints" in done.stdout
    assert "| torch\n" not in done.stderr.replace(" ", "| ")


def test_tokens_are_the_bytes_of_the_text(grown):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(grown.last)
    vocabulary = token_bytes(tokenizer)
    for text in ("the words, and more\n\tof them", "naïve €5 — 漢字 🙂"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(vocabulary[i] for i in ids) == text.encode()
    assert len(byte_letters()) == 256
    assert sorted(byte_letters().values()) == list(range(256))


def test_rows_are_split_without_loss(grown):
    rows = read_rows([str(grown.corpus)], lambda text: list(text.encode()), end=0, context=16,
                     tokens=4000)  # fmt: skip
    assert rows.size <= 4000
    train, held = split_rows(rows, held_out_tokens=320, seed=1)
    assert len(held) == 20
    together = np.concatenate([train, held])
    np.testing.assert_array_equal(np.sort(together, 0), np.sort(rows, 0))
    assert default_site(grown.last) == "model.layers.0"
