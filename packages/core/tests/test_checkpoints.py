import errno
import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from meristem_core import latest_checkpoint, save_checkpoint


def writer(data=b"weights"):
    def write(folder):
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_bytes(data)

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_with_its_files_and_state(tmp_path):
    path = save_checkpoint(tmp_path / "c", 123, writer(), state={"seen": 8, "loss": None})
    assert path == tmp_path / "c" / "step-00000123"
    found = latest_checkpoint(tmp_path / "c")
    assert found is not None
    assert (found.step, found.path, found.state) == (123, path, {"seen": 8, "loss": None})
    assert (path / "model" / "weights.bin").read_bytes() == b"weights"
    manifest = json.loads((path / "manifest.json").read_text())
    assert list(manifest["files"]) == ["model/weights.bin", "state.json"]


def test_no_folder_or_an_empty_one_has_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
    assert latest_checkpoint(tmp_path) is None


def test_older_ones_and_stale_temporaries_go_and_other_files_stay(tmp_path):
    (tmp_path / ".tmp-0").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-best").mkdir()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, writer(), state={}, keep=1)
    assert names(tmp_path) == ["notes.txt", "step-00000003", "step-best"]


@pytest.mark.parametrize("step", [5, 4, 0])
def test_a_step_that_does_not_grow_is_refused(tmp_path, step):
    save_checkpoint(tmp_path, 5, writer(), state={})
    with pytest.raises(ValueError, match=rf"step \({step}\) must be greater than the last .*\(5\)"):
        save_checkpoint(tmp_path, step, writer(), state={})


def test_steps_and_keep_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"step \(-1\) must lie between 0 and 99999999"):
        save_checkpoint(tmp_path, -1, writer(), state={})
    with pytest.raises(ValueError, match=r"step \(100000000\) must lie between"):
        save_checkpoint(tmp_path, 10**8, writer(), state={})
    with pytest.raises(ValueError, match=r"keep \(0\) must be at least 1"):
        save_checkpoint(tmp_path, 1, writer(), state={}, keep=0)


def test_the_names_of_state_and_manifest_are_ours(tmp_path):
    def write(folder):
        (folder / "state.json").write_text("{}")

    with pytest.raises(ValueError, match=r"write made state\.json, a name that checkpoints need"):
        save_checkpoint(tmp_path, 1, write, state={})
    assert names(tmp_path) == []


def test_a_state_that_is_not_finite_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path, 1, writer(), state={})
    with pytest.raises(ValueError, match="loss is nan"):
        save_checkpoint(tmp_path, 2, writer(), state={"loss": float("nan")})
    assert names(tmp_path) == ["step-00000001"]


def test_an_error_of_the_writer_passes_through_and_leaves_the_old_checkpoint(tmp_path):
    def write(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    save_checkpoint(tmp_path, 1, writer(), state={})
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, write, state={})
    assert names(tmp_path) == ["step-00000001"]


def test_a_write_cut_by_a_limit_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path, 1, writer(), state={}, keep=1)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
    try:
        with pytest.raises(OSError, match=r"step-00000002 was not written .*unchanged") as error:
            save_checkpoint(tmp_path, 2, writer(b"x" * 50_001), state={}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert error.value.errno == errno.EFBIG
    assert names(tmp_path) == ["step-00000001"]
    assert latest_checkpoint(tmp_path) is not None


def damage(path, kind):
    weights, manifest = path / "model" / "weights.bin", path / "manifest.json"
    if kind == "changed":
        weights.write_bytes(b"Weights")
    elif kind == "cut":
        weights.write_bytes(b"weight")
    elif kind == "missing":
        weights.unlink()
    elif kind == "no manifest":
        manifest.unlink()
    elif kind == "bad manifest":
        manifest.write_text('{"step": ')
    elif kind == "renamed":
        manifest.write_text(manifest.read_text().replace('"step": 2', '"step": 1'))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("changed", r"weights\.bin has SHA-256 [0-9a-f]{64}, not the saved [0-9a-f]{64}"),
        ("cut", r"weights\.bin has 6 bytes, not the saved 7"),
        ("missing", r"weights\.bin is missing, though the manifest names it"),
        ("no manifest", r"step-00000002 has no readable manifest \(.*not found"),
        ("bad manifest", r"has no readable manifest \(.*manifest\.json:1:10: Expecting value"),
        ("renamed", r"manifest\.json is not the manifest of step 2"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_mend(tmp_path, kind, message):
    save_checkpoint(tmp_path, 1, writer(), state={})
    damage(save_checkpoint(tmp_path, 2, writer(), state={}), kind)
    mend = r"; delete the folder .*step-00000002 \(checkpoint 1 is used then\)"
    with pytest.raises(ValueError, match=message + ".*" + mend):
        latest_checkpoint(tmp_path)


def test_the_only_checkpoint_damaged_means_a_new_start(tmp_path):
    damage(save_checkpoint(tmp_path, 2, writer(), state={}), "changed")
    with pytest.raises(ValueError, match="the run starts anew then"):
        latest_checkpoint(tmp_path)


SAVER = """
import sys
from pathlib import Path
from meristem_core import latest_checkpoint, save_checkpoint
folder = Path(sys.argv[1])
last = latest_checkpoint(folder)
print("ready", flush=True)
for step in range(last.step + 1 if last else 0, 10**7):
    def write(path):
        for part in range(3):
            (path / f"part{part}").write_bytes(step.to_bytes(4, "big") * 20_000)
    save_checkpoint(folder, step, write, state={"step": step})
"""


def test_kills_at_drawn_moments_leave_a_whole_latest_checkpoint(tmp_path):
    rng, last = np.random.default_rng(11), -1
    for delay in rng.uniform(0.0, 0.1, size=8):
        command = [sys.executable, "-c", SAVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            try:
                child.wait(delay)
            except subprocess.TimeoutExpired:
                child.kill()
        found = latest_checkpoint(tmp_path)  # raises if torn
        step = found.step if found else -1
        assert step >= last, f"went back from {last} to {step} after {delay:.4f} s"
        if found:
            assert found.state == {"step": step}
            parts = {(found.path / f"part{n}").read_bytes() for n in range(3)}
            assert parts == {step.to_bytes(4, "big") * 20_000}
        last = step
    assert last > 0, "no checkpoint was ever saved; the delays are too short to test anything"
