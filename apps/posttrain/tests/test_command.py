"""What the command says before anything heavy is imported."""

import subprocess
import sys

import meristem_posttrain


def test_help_does_without_torch():
    command = [sys.executable, "-X", "importtime", "-m", "meristem_posttrain", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage: meristem posttrain" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported
    assert not {"torch", "transformers", "accelerate", "peft"} & imported


def test_every_name_of_the_stub_is_there():
    assert "fit" in meristem_posttrain.__all__
    for name in meristem_posttrain.__all__:
        assert getattr(meristem_posttrain, name).__name__ == name
