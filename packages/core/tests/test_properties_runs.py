"""State machines: journal, run folder and checkpoints under kills, damage and resumption."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meristem_core import Journal, latest_checkpoint, open_run, save_checkpoint

records = st.fixed_dictionaries(
    {"step": st.integers(0, 9), "x": st.floats(-1, 1) | st.text("aβ\n")}
)
configs = st.fixed_dictionaries({"seed": st.integers(0, 1), "model": st.just({"width": 64})})


class JournalMachine(RuleBasedStateMachine):
    """A journal equals a list, whatever is torn off its end before it is opened again."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.jsonl"
        self.journal = Journal(self.path)
        self.records = []

    @rule(record=records, sync=st.booleans())
    def append(self, record, sync):
        self.journal.append(record, sync=sync)
        self.records.append(record)

    @rule(bad=st.sampled_from([float("nan"), float("inf"), {1}, b"x"]))
    def refuse(self, bad):
        with pytest.raises((ValueError, TypeError), match=r"x\[0\] is"):
            self.journal.append({"x": [bad]})

    @rule(step=st.integers(0, 9))
    def rewind(self, step):
        kept = [record for record in self.records if record["step"] <= step]
        dropped = self.journal.rewind(lambda record: record["step"] <= step)
        assert dropped == len(self.records) - len(kept)
        self.records = kept

    @rule(record=records, share=st.floats(0, 1, exclude_max=True), tail=st.sampled_from([0, 3]))
    def tear_and_reopen(self, record, share, tail):
        """A kill in the middle of a write: a part of the line, perhaps with lost blocks."""
        self.journal.close()
        line = json.dumps(record).encode()
        torn = line[: int(share * len(line))] + b"\0" * tail
        with self.path.open("ab") as file:
            file.write(torn)
        self.journal = Journal(self.path)
        assert self.journal.repaired_bytes == len(torn)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def lose_the_end_and_reopen(self, data):
        """A power cut takes unsynced bytes."""
        self.journal.close()
        size = self.path.stat().st_size
        cut = data.draw(st.integers(0, size))
        with self.path.open("r+b") as file:
            file.truncate(cut)
        self.records = self.records[: self.path.read_bytes().count(b"\n")]
        self.journal = Journal(self.path)

    @invariant()
    def equals_the_list(self):
        found = list(self.journal)
        assert found == self.records, f"journal {found}, list {self.records}"

    def teardown(self):
        self.journal.close()
        shutil.rmtree(self.folder)


class RunMachine(RuleBasedStateMachine):
    """A run folder belongs to its first config until it is deleted, and to one opener at a time."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "run"
        self.config = None  # of the run in the folder
        self.run = None  # what holds the lock

    def open(self, config, version="0.1.0"):
        return open_run(self.path, config, name="demo", version=version)

    @rule(config=configs, patch=st.integers(0, 3))
    def start_or_resume(self, config, patch):
        if self.run is not None:
            with pytest.raises(BlockingIOError, match="open in another process"):
                self.open(config)
        elif self.config not in (None, config):
            with pytest.raises(ValueError, match="has another config: seed is"):
                self.open(config)
        else:
            self.run = self.open(config, f"0.1.{patch}")
            assert self.run.resumed == (self.config is not None)
            self.config = config

    @precondition(lambda self: self.run is not None)
    @rule()
    def close(self):
        assert self.run is not None
        self.run.close()
        self.run = None

    @precondition(lambda self: self.run is None)
    @rule()
    def delete(self):
        shutil.rmtree(self.path, ignore_errors=True)
        self.config = None

    @precondition(lambda self: self.run is None)
    @rule(kept=st.sampled_from([[".lock"], [".lock", "config.json"], []]))
    def cut_back_to_what_a_kill_leaves(self, kept):
        """The first start writes the lock, then the config, then the environment."""
        if self.config is None:
            return
        for path in self.path.iterdir():
            if path.name not in kept:
                path.unlink()
        if "config.json" not in kept:
            self.config = None
        (self.path / ".tmp-00").write_text("half")

    @invariant()
    def a_run_has_its_config(self):
        written = self.path / "config.json"
        assert written.exists() == (self.config is not None)
        if self.config is not None:
            assert json.loads(written.read_text())["config"] == self.config

    def teardown(self):
        if self.run is not None:
            self.run.close()
        shutil.rmtree(self.folder)


class CheckpointMachine(RuleBasedStateMachine):
    """The newest checkpoint is the last saved one; damage is found, deletion mends it."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.contents = {}  # step -> bytes, of the checkpoints that should be there
        self.damaged = set()

    def save(self, step, content, *, keep=2):
        def write(path):
            (path / "weights").write_bytes(content)

        return save_checkpoint(self.folder, step, write, state={"step": step}, keep=keep)

    @rule(
        gap=st.integers(1, 100), content=st.binary(min_size=1, max_size=50), keep=st.integers(1, 3)
    )
    def save_next(self, gap, content, keep):
        step = max(self.contents, default=-1) + gap
        self.save(step, content, keep=keep)
        self.contents[step] = content
        self.contents = {n: self.contents[n] for n in sorted(self.contents)[-keep:]}
        self.damaged &= self.contents.keys()

    @precondition(lambda self: self.contents)
    @rule(back=st.integers(0, 5))
    def refuse_an_old_step(self, back):
        step = max(self.contents) - back
        with pytest.raises(ValueError, match=r"must be greater than the last|must lie between 0"):
            self.save(step, b"x")

    @rule(error=st.sampled_from([KeyboardInterrupt, ValueError, OSError]))
    def fail_on_the_way(self, error):
        def write(path):
            (path / "weights").write_bytes(b"half")
            raise error

        with pytest.raises(error):
            save_checkpoint(self.folder, 10**6, write, state={}, keep=1)

    @rule()
    def be_killed_on_the_way(self):
        (self.folder / ".tmp-0123").mkdir(exist_ok=True)
        (self.folder / ".tmp-0123" / "weights").write_bytes(b"half")

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def damage(self, data):
        step = data.draw(st.sampled_from(sorted(set(self.contents) - self.damaged) or [None]))
        if step is not None:
            weights = self.folder / f"step-{step:08d}" / "weights"
            content = bytearray(weights.read_bytes())
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1
            weights.write_bytes(content)
            self.damaged.add(step)

    @precondition(lambda self: self.damaged)
    @rule()
    def follow_the_mend(self):
        step = max(self.contents)
        if step in self.damaged:
            shutil.rmtree(self.folder / f"step-{step:08d}")
            self.damaged.remove(step)
            del self.contents[step]

    @invariant()
    def the_latest_is_whole_or_named(self):
        if not self.contents:
            assert latest_checkpoint(self.folder) is None
            return
        step = max(self.contents)
        if step in self.damaged:
            with pytest.raises(ValueError, match=rf"step-{step:08d}/weights has SHA-256"):
                latest_checkpoint(self.folder)
            return
        found = latest_checkpoint(self.folder)
        assert found is not None
        assert (found.step, found.state) == (step, {"step": step})
        assert (found.path / "weights").read_bytes() == self.contents[step]

    @invariant()
    def exactly_the_kept_ones_are_there(self):
        there = {int(path.name[5:]) for path in self.folder.glob("step-*")}
        assert there == set(self.contents), f"there {there}, kept {set(self.contents)}"

    def teardown(self):
        shutil.rmtree(self.folder)


def patient(machine):
    """Each step writes and syncs files: divide the profile's number of examples."""
    case = machine.TestCase
    case.settings = settings(
        max_examples=max(settings().max_examples // 5, 1), stateful_step_count=15
    )
    return case


TestJournal = patient(JournalMachine)
TestRun = patient(RunMachine)
TestCheckpoints = patient(CheckpointMachine)
