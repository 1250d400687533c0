"""The main job from the command line: a whole small run, its files, its refusals."""

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest


@pytest.fixture
def copied(grown, tmp_path):
    """Return a copy of the run for a command that opens it, and that command."""
    out, words, _ = grown
    return shutil.copytree(out, tmp_path / "run"), [*words, "--out", tmp_path / "run"]


def test_it_ends_with_a_table_and_a_verdict(grown):
    out, _, done = grown
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["claim", "claimed", "measured", "verdict"]
    assert lines[-1].startswith("verdict: ")
    assert (done.returncode == 0) == (lines[-1] == "verdict: every check holds")
    assert f"report: {out / 'report.html'}" in lines


def test_the_result_holds_everything(grown):
    out, *_ = grown
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == "meristem-grow/1"
    assert result["pretrained"]["snapshots"] == result["phases"]["steps"]
    assert set(result["phases"]["domains"]) == {"words"}
    assert result["pretrained"]["tokens_per_second"] > 0
    assert result["peak_memory"] > 50 * 2**20
    assert [row["verdict"] for row in result["rows"]]


def test_every_snapshot_loads_and_its_token_losses_are_kept(grown):
    out, *_ = grown
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = json.loads((out / "result.json").read_text())
    losses = {}
    for step in result["phases"]["steps"]:
        folder = out / "pretrain" / "snapshots" / f"step-{step:09d}"
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folder))
        losses[step] = np.load(out / "phases" / f"words.{step}.loss.npy")
    curve = result["phases"]["domains"]["words"]["loss"]
    assert [float(each.mean(dtype=np.float64)) for each in losses.values()] == curve
    assert curve[-1] < curve[0] - 0.5, "it learned"
    assert curve[0] == pytest.approx(np.log(512), abs=0.2), "a fresh model is near uniform"


def test_the_snapshots_sit_an_exam(grown):
    out, *_ = grown
    exam = json.loads((out / "result.json").read_text())["exam"]
    assert exam["steps"] == json.loads((out / "result.json").read_text())["phases"]["steps"]
    assert set(exam["kinds"]) == {"continue", "order", "repeat"}
    assert len(exam["items"]) == len(set(exam["items"])) == len(exam["difficulty"]) == 90
    assert abs(np.mean(exam["difficulty"])) < 1e-9, "items average 0"
    first, last = exam["rate"]["continue"][0], exam["rate"]["continue"][-1]
    assert abs(first - 0.25) < 0.25, "a fresh model guesses"
    assert last > first, "it learned what follows"
    assert exam["ability"][-1] > exam["ability"][0]
    for low, middle, high in zip(exam["low"], exam["ability"], exam["high"], strict=True):
        assert low < middle < high


def test_the_report_stands_alone(grown):
    out, *_ = grown
    text = (out / "report.html").read_text(encoding="utf-8")

    class Finder(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attributes):
            self.found += [value or "" for name, value in attributes if name in ("src", "href")]

    Finder().feed(text)
    assert Finder.found == ["explorer.html"], "nothing is loaded from elsewhere"
    assert text.count("<svg") >= 8


def test_a_finished_run_is_not_run_again(grown, copied, command):
    out, words = copied
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/stage.json")}
    again = command(*words)
    assert again.stdout == grown[2].stdout.replace(str(grown[0]), str(out))
    assert again.stderr.count("finished before") == 8
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/stage.json")} == before


def test_another_config_is_refused_and_nothing_is_touched(copied, command):
    out, words = copied
    before = (out / "result.json").read_bytes()
    done = command(*words, "--seed", 7)
    assert done.returncode == 2
    assert "seed" in done.stderr
    assert (out / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", 0], "--steps (0) must be at least 1"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
        (["--scale", "paper"], "--scale paper needs --corpus"),
    ],
)
def test_a_bad_value_ends_with_two_and_one_line(tmp_path, command, words, message):
    done = command("grow", *words, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.rstrip("\n").splitlines()[-1].startswith("meristem: ")


def test_a_scale_for_gpus_is_refused_without_one(tmp_path, meristem):
    words = ["grow", "--scale", "paper", "--corpus", "x.txt", "--out", tmp_path / "run"]
    done = meristem(*words, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "needs GPUs" in done.stderr
    assert done.stderr.rstrip("\n").splitlines()[-1].startswith("meristem: ")
    assert "Traceback" not in done.stderr


def test_too_little_text_is_refused(tmp_path, command):
    path = tmp_path / "short.txt"
    path.write_text("\n\n".join("only a few words " * 130 for _ in range(25)))
    done = command("grow", "--scale", "micro", "--corpus", path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "give more text" in done.stderr


def test_a_folder_of_something_else_is_refused(tmp_path, grown, command):
    (tmp_path / "mine.txt").write_text("precious")
    done = command(*grown[1], "--out", tmp_path)
    assert done.returncode == 2
    assert "not a run folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_help_is_quick_and_brings_no_torch(meristem):
    done = meristem("grow", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "--corpus" in done.stdout
    assert "| torch\n" not in done.stderr.replace(" ", "| ")


def test_an_unknown_command_is_named(meristem):
    done = meristem("grwo")
    assert done.returncode == 2
    assert "no command grwo; there are grow, " in done.stderr


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_opens_in_a_browser_at_any_width(grown, open_page, width):
    out, *_ = grown
    with open_page(out / "report.html", width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        titles = page.locator("h2").all_text_contents()
        assert titles[:3] == ["In short", "Loss", "Learning phases"]
        page.locator("summary").first.click()
        assert page.locator("details[open] dt").count() >= 5, "every snapshot wrote something"


def test_votes_are_measured_on_the_grown_model(grown):
    out, *_ = grown
    found = json.loads((out / "result.json").read_text(encoding="utf-8"))["deliberation"]
    assert 2 <= found["tasks"] <= 48
    assert set(found["votes"]) == {"majority", *found["minus_majority"]}
    for mean, low, high in [found["one"], found["coverage"], *found["votes"].values()]:
        assert 0 <= low <= mean <= high <= 1
    assert found["one"][0] <= found["coverage"][0]
    assert len(found["rounds"]) == 4
