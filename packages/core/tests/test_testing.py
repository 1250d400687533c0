import json
import os
import subprocess
import sys
import time
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_info

from meristem_core.testing import _profiles, assert_close, assert_commutes, kill_and_resume
from meristem_core.testing._fixtures import real_data

CONFTEST = "from meristem_core.testing import data_dir, pytest_configure, xp  # noqa: F401\n"
VARIABLES = ("CI", "HYPOTHESIS_PROFILE", "HYPOTHESIS_MAX_EXAMPLES", "MERISTEM_DATA")
CLEAN = {key: value for key, value in os.environ.items() if key not in VARIABLES}


def run_pytest(folder, body, *options):
    """Run pytest in a folder of its own, with the one-import conftest."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command, cwd=folder, env=CLEAN, capture_output=True, text=True, check=False
    )


def test_the_conftest_alone_sets_everything_up(tmp_path):
    ended = run_pytest(
        tmp_path,
        "import os, warnings\n"
        "import pytest\n"
        "from hypothesis import settings\n"
        "@pytest.mark.slow\n"
        "@pytest.mark.data\n"
        "def test_markers_are_known(): pass\n"
        "def test_a_warning_is_an_error():\n"
        "    with pytest.raises(UserWarning): warnings.warn('x')\n"
        "def test_profile(): assert (settings().max_examples, settings().deadline) == (50, None)\n"
        "def test_threads(): assert os.environ['OMP_NUM_THREADS'] == '1'\n"
        "def test_data(data_dir): assert False, 'there is no data here'\n",
        "--strict-markers",
        "-rs",
    )
    assert "needs real data; name its folder in MERISTEM_DATA" in ended.stdout
    assert "4 passed, 1 skipped" in ended.stdout, ended.stdout + ended.stderr


PROFILES = """
import json, os, sys
from hypothesis import HealthCheck, settings
from meristem_core.testing import _profiles
for environment in json.loads(sys.argv[1]):
    for name in ("CI", "HYPOTHESIS_PROFILE", "HYPOTHESIS_MAX_EXAMPLES"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    _profiles._register_profiles()
    s = settings.get_profile(_profiles._profile())
    patient = HealthCheck.too_slow in s.suppress_health_check
    database = s.database is not None
    found = s.max_examples, s.derandomize, database, s.print_blob, patient, s.deadline
    print(json.dumps(found))
"""


def test_profiles_do_not_depend_on_what_ci_makes_the_default():
    cases = [
        ({}, [50, False, True, False, False, None]),
        ({"CI": "1"}, [200, True, False, True, True, None]),
        ({"CI": "1", "HYPOTHESIS_PROFILE": "dev"}, [50, False, True, False, False, None]),
        ({"HYPOTHESIS_PROFILE": "gate"}, [50, True, False, True, True, None]),
        ({"HYPOTHESIS_PROFILE": "release"}, [2000, False, True, False, True, None]),
        (
            {"HYPOTHESIS_PROFILE": "release", "HYPOTHESIS_MAX_EXAMPLES": "7"},
            [7, False, True, False, True, None],
        ),
    ]
    ended = subprocess.run(
        [sys.executable, "-c", PROFILES, json.dumps([environment for environment, _ in cases])],
        env=CLEAN | {"CI": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [case for _, case in cases]


def test_wrong_variables_are_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "fast")
    with pytest.raises(ValueError, match=r"HYPOTHESIS_PROFILE \(fast\) is unknown; choose dev"):
        _profiles._profile()
    for text in ("0", "-1", "many"):
        monkeypatch.setenv("HYPOTHESIS_MAX_EXAMPLES", text)
        with pytest.raises(ValueError, match=rf"MAX_EXAMPLES \({text}\) must be a whole number"):
            _profiles._examples()
    monkeypatch.setenv("MERISTEM_DATA", "/no/folder")
    with pytest.raises(ValueError, match=r"MERISTEM_DATA \(/no/folder\) is not a folder; correct"):
        real_data(tmp_path)


def test_filters_of_the_own_configuration_win(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = ignore:harmless\n")
    body = (
        "import warnings, pytest\n"
        "def test_it():\n"
        "    warnings.warn('harmless')\n"
        "    with pytest.raises(UserWarning): warnings.warn('other')\n"
    )
    ended = run_pytest(tmp_path, body)
    assert ended.returncode == 0, ended.stdout


def test_this_process_has_one_thread_and_no_deadline():
    assert settings().deadline is None
    assert all(library["num_threads"] == 1 for library in threadpool_info())


def test_real_data_lie_in_the_named_folder_or_beside_the_checkout(monkeypatch, tmp_path):
    monkeypatch.delenv("MERISTEM_DATA", raising=False)
    assert real_data(tmp_path / "checkout") is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert real_data(tmp_path / "checkout") == tmp_path / "shared" / "data"
    monkeypatch.setenv("MERISTEM_DATA", str(tmp_path))
    assert real_data(tmp_path / "checkout") == tmp_path


def test_xp_gives_one_namespace_after_the_other(xp):
    x = xp.asarray([3.0, 1.0], dtype=xp.float32)
    assert_close(xp.sort(x), np.array([1.0, 3.0]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_close_means_a_few_roundings(dtype):
    x = np.ones(100, dtype=dtype)
    eps = np.finfo(dtype).eps
    assert_close(x * (1 + 8 * eps), x)
    off = x.copy()
    off[17] += 200 * eps
    with pytest.raises(AssertionError, match=r"sums: \[17\] is .*, expected .*; off by .*, tol"):
        assert_close(off, x, context="sums")
    assert_close(off, x, scale=10.0)


def test_the_coarser_dtype_decides():
    assert_close(np.float32(0.1), 0.1)
    with pytest.raises(AssertionError, match=r"value is 0\.1000000\d+, expected 0\.1; off by"):
        assert_close(float(np.float32(0.1)), 0.1)


def test_scale_zero_is_relative():
    assert_close(np.array([1e-300]), np.array([1e-300 * (1 + 1e-15)]), scale=0.0)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(np.array([1e-300]), np.array([2e-300]), scale=0.0)
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"scale \(.*\) must be finite and at least 0"):
            assert_close(1.0, 1.0, scale=scale)


def test_shapes_whole_numbers_and_special_values_are_compared_exactly():
    with pytest.raises(AssertionError, match=r"shape is \(2,\), expected \(2, 1\)"):
        assert_close(np.zeros(2), np.zeros((2, 1)))
    with pytest.raises(AssertionError, match=r"\[1, 0\] is 3, expected 4"):
        assert_close(np.array([[1], [3]]), np.array([[1], [4]]))
    with pytest.raises(AssertionError, match=r"\[0\] is True, expected False"):
        assert_close(np.array([True]), np.array([False]))
    special = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert_close(special, special)
    for other in (1.0, np.inf):
        with pytest.raises(AssertionError, match=r"\[0\] is nan, expected"):
            assert_close(np.array([np.nan]), np.array([other]))
    with pytest.raises(AssertionError, match=r"\[0\] is 1\.0, expected inf"):
        assert_close(np.array([1.0]), np.array([np.inf]))
    with pytest.raises(AssertionError, match=r"value is inf, expected -inf"):
        assert_close(np.inf, -np.inf)
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))


def test_backends_are_compared_with_each_other():
    torch = pytest.importorskip("torch")
    x = [0.1, 0.25]
    assert_close(torch.tensor(x, requires_grad=True), np.array(x))
    assert_close(torch.tensor(x, dtype=torch.bfloat16), array_api_strict.asarray(x))
    assert_close(torch.tensor([1, 2]), np.array([1, 2]))
    with pytest.raises(AssertionError, match=r"\[0\] is 0\.1"):
        assert_close(torch.tensor(x, dtype=torch.float64), torch.tensor([0.1001, 0.25]))


def test_commutes():
    x = np.arange(6.0).reshape(2, 3)
    assert_commutes(lambda a: a.sum(axis=1), lambda a: a[::-1], lambda a: a[::-1], x)
    with pytest.raises(AssertionError, match=r"f\(before\(x\)\) and after\(f\(x\)\): \[0\] is 12"):
        assert_commutes(lambda a: a.sum(axis=1), lambda a: a[::-1], lambda a: a, x)


RUN = """
import json, sys, time
from pathlib import Path
from meristem_core import Journal, latest_checkpoint, open_run, save_checkpoint, write_json
with open_run(sys.argv[1], {"steps": 12}, name="demo", version="0.1.0") as run:
    last = latest_checkpoint(run.path / "checkpoints")
    step, total = (last.step, last.state["total"]) if last else (0, 0)
    with Journal(run.path / "metrics.jsonl") as journal:
        journal.rewind(lambda record: record["step"] <= step)
        while step < 12:
            step, total = step + 1, total + (step + 1) ** 2
            time.sleep(0.01)
            journal.append({"step": step, "total": total})
            if step % 3 == 0:
                save_checkpoint(run.path / "checkpoints", step, lambda path: None,
                                state={"total": total})
        write_json(run.path / "result.json", {"total": total, "records": list(journal)})
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize(("at", "code"), [(0.0, 0), (0.6, 1)])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, at, code):
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", RUN, str(run_dir), str(code)]
    both = kill_and_resume(command, run_dir, at=at)
    assert both.was_running or at > 0, "the kill at once came too late"
    assert both.resumed == both.whole
    assert json.loads(both.whole)["total"] == sum(n * n for n in range(1, 13))
    assert (tmp_path / "run-whole" / "metrics.jsonl").read_bytes() == (
        run_dir / "metrics.jsonl"
    ).read_bytes()


def test_a_run_that_forgets_its_state_is_found_out(tmp_path):
    script = (
        "import sys, time, pathlib\n"
        "path = pathlib.Path(sys.argv[1]); path.mkdir(exist_ok=True)\n"
        "starts = path / 'starts'\n"
        "starts.write_text(starts.read_text() + 'x' if starts.exists() else 'x')\n"
        "time.sleep(0.5)\n"
        "(path / 'result.json').write_text(starts.read_text())\n"
    )
    both = kill_and_resume(
        [sys.executable, "-c", script, str(tmp_path / "r")], tmp_path / "r", at=0.7
    )
    assert (both.whole, both.resumed) == (b"x", b"xx")


def test_children_of_the_killed_run_die_with_it(tmp_path):
    script = (
        "import subprocess, sys, time, pathlib\n"
        "path = pathlib.Path(sys.argv[1]); first = not path.with_name('r-whole').exists()\n"
        "path.mkdir(exist_ok=True)\n"
        "if not first and not (path / 'pid').exists():\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        "    (path / 'pid').write_text(str(child.pid))\n"
        "    time.sleep(60)\n"
        "time.sleep(0.5)\n"
        "(path / 'result.json').write_text('{}')\n"
    )
    kill_and_resume([sys.executable, "-c", script, str(tmp_path / "r")], tmp_path / "r", at=0.9)
    stat = Path("/proc") / (tmp_path / "r" / "pid").read_text() / "stat"
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not stat.exists() or stat.read_text().split()[2] == "Z", "the child still runs"


def test_wrong_use_of_kill_and_resume_is_refused(tmp_path):
    run_dir = tmp_path / "run"
    for at in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"at \(.*\) must lie in \[0, 1\)"):
            kill_and_resume(["true"], run_dir, at=at)
    with pytest.raises(RuntimeError, match=r"true exited with 0 and no result in .*run"):
        kill_and_resume(["true"], run_dir, at=0.5)
    fail = [sys.executable, "-c", "import sys; sys.exit('the disk is full')"]
    with pytest.raises(RuntimeError, match=r"exited with 1 and no result .*: the disk is full"):
        kill_and_resume(fail, run_dir, at=0.5)
    run_dir.mkdir()
    with pytest.raises(ValueError, match=r"run exists; both runs start anew, so give another"):
        kill_and_resume(["true"], run_dir, at=0.5)
