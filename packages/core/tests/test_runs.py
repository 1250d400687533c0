import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meristem_core import open_run, read_json, write_json
from meristem_core._runs import environment

CONFIG = {"seed": 1, "model": {"width": 64, "layers": 2}, "paths": ["a", "b"]}


def opened(path, config=CONFIG, *, name="demo", version="0.1.0"):
    return open_run(path, config, name=name, version=version)


def test_a_new_run_holds_its_config_and_environment(tmp_path):
    with opened(tmp_path / "runs" / "a") as run:
        assert run.path == tmp_path / "runs" / "a"
        assert not run.resumed
    made = read_json(run.path / "config.json")
    assert made == {"name": "demo", "version": "0.1.0", "config": CONFIG}
    env = read_json(run.path / "env.json")
    assert isinstance(env, dict)
    assert list(env) == ["python", "platform", "cpu_count", "versions", "argv"]
    assert {"numpy", "meristem-core"} <= env["versions"].keys()


def test_the_environment_holds_no_names_of_machine_user_or_folder():
    text = json.dumps({key: value for key, value in environment().items() if key != "argv"})
    for secret in (os.uname().nodename, str(Path.home()), str(Path.cwd())):
        assert secret not in text, f"env.json tells {secret}"


def test_an_equal_config_resumes_and_keeps_the_files(tmp_path):
    with opened(tmp_path / "a") as run:
        (run.path / "metrics.jsonl").write_text("{}\n")
        started = (run.path / "env.json").read_bytes()
    reordered = {"paths": ("a", "b"), "model": {"layers": 2, "width": 64}, "seed": 1}
    with opened(tmp_path / "a", reordered, version="0.1.9") as run:
        assert run.resumed
        assert (run.path / "metrics.jsonl").read_text() == "{}\n"
        assert (run.path / "env.json").read_bytes() == started


def test_another_config_is_refused_with_the_differing_fields(tmp_path):
    opened(tmp_path / "a").close()
    other = {"seed": 2, "model": {"width": 64}, "paths": ["x" * 100], "new": None}
    with pytest.raises(ValueError, match="has another config") as error:
        opened(tmp_path / "a", other)
    assert str(error.value) == (
        f"{tmp_path}/a has another config: seed is 1 there and 2 here, "
        "model.layers is 2 there and absent here, "
        f'paths is ["a","b"] there and ["{"x" * 55}... here, '
        "new is absent there and null here; choose another --out, or delete the folder"
    )


def test_of_long_values_the_place_where_they_differ_is_shown(tmp_path):
    here, there = ([f"{'corpora/' * 20}{name}.jsonl"] for name in ("python", "english"))
    opened(tmp_path / "a", {"corpus": here}).close()
    match = r'/python\.jsonl"\] there and \.\.\..*/english\.jsonl"\] here'
    with pytest.raises(ValueError, match=match):
        opened(tmp_path / "a", {"corpus": there})


def test_an_integer_is_another_config_than_a_float(tmp_path):
    opened(tmp_path / "a", {"lr": 1}).close()
    with pytest.raises(ValueError, match=r"lr is 1 there and 1\.0 here"):
        opened(tmp_path / "a", {"lr": 1.0})


def test_another_name_or_minor_version_is_refused(tmp_path):
    opened(tmp_path / "a").close()
    with pytest.raises(ValueError, match="a is a run of demo, not of grow; choose another --out"):
        opened(tmp_path / "a", name="grow")
    with pytest.raises(ValueError, match=r"made by demo 0\.1\.0, this is 0\.2\.0; runs resume"):
        opened(tmp_path / "a", version="0.2.0")


@pytest.mark.parametrize("name", ["thesis.tex", "env.json", ".git"])
def test_a_folder_with_other_files_is_refused_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"not a run folder and not empty \(it holds {name}\); "):
        opened(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_foreign_config_file_is_refused(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "gpt2"})
    with pytest.raises(ValueError, match=r"config\.json was not written by a run"):
        opened(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json:1:2: Expecting property name"):
        opened(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ValueError, match="a is not a folder; choose another --out"):
        opened(tmp_path / "a")


def test_a_config_that_is_not_finite_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"config\.lr is nan"):
        opened(tmp_path / "a", {"lr": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_start_leaves_is_taken_over_and_swept(tmp_path):
    (tmp_path / ".lock").write_text("1")
    (tmp_path / ".tmp-01").write_text("{")
    (tmp_path / ".tmp-02").mkdir()
    (tmp_path / ".tmp-02" / "x").write_text("half a checkpoint")
    with opened(tmp_path) as run:
        assert not run.resumed
    assert sorted(e.name for e in tmp_path.iterdir()) == [".lock", "config.json", "env.json"]


def test_a_run_killed_before_env_json_gets_one(tmp_path):
    opened(tmp_path / "a").close()
    (tmp_path / "a" / "env.json").unlink()
    with opened(tmp_path / "a") as run:
        assert run.resumed
        assert (run.path / "env.json").exists()


def test_another_environment_is_logged(tmp_path, caplog):
    opened(tmp_path / "a").close()
    env = read_json(tmp_path / "a" / "env.json")
    assert isinstance(env, dict)
    write_json(tmp_path / "a" / "env.json", env | {"python": "3.9.0"})
    with caplog.at_level(logging.INFO, logger="meristem_core"):
        opened(tmp_path / "a").close()
    assert 'resumes in another environment: python is "3.9.0" there' in caplog.text


HOLDER = """
import sys, time
from meristem_core import open_run
with open_run(sys.argv[1], {}, name="demo", version="0.1.0"):
    print("open", flush=True)
    time.sleep(60)
"""


def test_two_processes_cannot_hold_one_run_and_a_kill_frees_it(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(BlockingIOError, match=rf"open in another process \(pid {child.pid}"):
            opened(tmp_path / "a", {})
        child.kill()
    with opened(tmp_path / "a", {}) as run:
        assert run.resumed


def test_the_lock_is_given_back_by_close_and_by_errors(tmp_path):
    run = opened(tmp_path / "a")
    with pytest.raises(BlockingIOError, match="wait until it ends, or choose another --out"):
        opened(tmp_path / "a")
    run.close()
    run.close()
    with pytest.raises(ValueError, match="another config"):
        opened(tmp_path / "a", {})
    opened(tmp_path / "a").close()
