"""The checkpoints that a user names: their models at one site, and their tokenizer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from meristem_core.command import UsageError
from meristem_crosscoders import SnapshotSet, find_snapshots

HUB = "hub:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the checkpoints lie: a folder for each step, or revisions of a hub repository."""

    paths: Mapping[int, Path]
    repository: str = ""
    revisions: Mapping[int, str] | None = None


def find_source(text: str) -> Source:
    """Return what `--checkpoints` names.

    Raises
    ------
    UsageError
        If there is no checkpoint, or a revision does not end with its step.

    Examples
    --------
    >>> find_source("hub:EleutherAI/pythia-160m@step512,step1000").revisions
    {512: 'step512', 1000: 'step1000'}
    """
    if not text.startswith(HUB):
        if not Path(text).is_dir():
            raise UsageError(f"--checkpoints {text} not found; give a folder of checkpoint folders")
        try:
            paths = find_snapshots(text)
        except ValueError as error:
            raise UsageError(f"--checkpoints: {error}") from error
        return Source(paths=paths)
    repository, _, names = text.removeprefix(HUB).partition("@")
    revisions: dict[int, str] = {}
    for name in filter(None, names.split(",")):
        number = re.search(r"(\d+)$", name)
        if number is None:
            raise UsageError(f"--checkpoints: revision {name} does not end with its step")
        revisions[int(number[1])] = name
    if not revisions:
        raise UsageError(f"--checkpoints {text} names no revision; add @REVISION,REVISION,...")
    return Source(paths={}, repository=repository, revisions=dict(sorted(revisions.items())))


def load_source(
    source: Source, site: str, *, device: str | torch.device
) -> tuple[SnapshotSet, PreTrainedTokenizerBase]:
    """Return the models at a site ("": the middle layer) and the tokenizer of the last one.

    Raises
    ------
    UsageError
        If they do not fit together, there are fewer than 3, or a tokenizer is missing.
    """
    logging.disable_progress_bar()
    steps = list(source.revisions or source.paths)
    if len(steps) < 3:
        raise UsageError(f"--checkpoints: {len(steps)} of {steps}; an evolution needs at least 3")
    try:
        if source.revisions:
            where = {"pretrained_model_name_or_path": source.repository,
                     "revision": source.revisions[steps[-1]]}  # fmt: skip
            tokenizer = AutoTokenizer.from_pretrained(**where)
        else:
            tokenizer = AutoTokenizer.from_pretrained(source.paths[steps[-1]])
    except (OSError, ValueError) as error:
        raise UsageError(f"--checkpoints: no tokenizer beside the last one ({error})") from error
    try:
        return _snapshots(source, site, device), tokenizer
    except ValueError as error:
        raise UsageError(f"--checkpoints: {error}") from error


def default_site(name: str | Path, revision: str = "main") -> str:
    """Return the middle layer of the model in a folder or hub repository, the lower of two.

    Raises
    ------
    UsageError
        If the model has no list of layers.
    """
    config = AutoConfig.from_pretrained(name, revision=revision)
    with torch.device("meta"):  # no weights are needed
        model = AutoModelForCausalLM.from_config(config)
    lists = {
        name: len(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    }
    if not lists:
        raise UsageError("the model has no list of layers; give --site")
    longest = max(lists, key=lambda each: lists[each])
    return f"{longest}.{(lists[longest] - 1) // 2}"


def _snapshots(source: Source, site: str, device: str | torch.device) -> SnapshotSet:
    if source.revisions:
        last = list(source.revisions.values())[-1]
        site = site or default_site(source.repository, last)
        return SnapshotSet.from_hub(source.repository, source.revisions, site, device=device)
    site = site or default_site(list(source.paths.values())[-1])
    return SnapshotSet.from_dirs(source.paths, site, device=device)
