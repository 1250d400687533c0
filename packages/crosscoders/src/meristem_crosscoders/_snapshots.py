"""The snapshots of one run, side by side, and their activations at one site.

- a site is the name of a submodule, as in `model.get_submodule`; its output is the activation
- all snapshots see the same tokens; the forward pass ends at the site
- what does not fit together (site, width, vocabulary, tokenizer) is refused before any work

Shape letters: N sequences, T positions, S snapshots, D width.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from meristem_core import digest

FORWARD_TOKENS = 8192  # of one forward pass: large enough for the matrix units, small in memory
LISTED_SITES = 5  # names that an error shows


class SnapshotSet:
    """Models of one run after some of its steps, read at one site.

    Parameters
    ----------
    models
        For each training step a function that returns the model: called once if `resident`,
        otherwise whenever that model is needed, so that one of them is in memory at a time.
    site
        Name of a submodule whose output has shape (N, T, D), or is a tuple that begins with it.
    resident
        Whether the models stay in memory.
    device
        Where they run.

    Raises
    ------
    ValueError
        If there is no model, the site is missing (the nearest names are listed), or width,
        vocabulary or submodules differ.
    """

    def __init__(
        self,
        models: Mapping[int, Callable[[], nn.Module]],
        site: str,
        *,
        resident: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        if not models:
            raise ValueError("there is no snapshot; give at least one step and its model")
        self.steps = tuple(sorted(models))
        self.site = site
        self.device = torch.device(device)
        self.d_model, self.vocabulary = 0, 0
        self._names: set[str] = set()
        self._load = {step: models[step] for step in self.steps}
        self._models: dict[int, nn.Module] = {}
        for step in self.steps:
            model = self.model(step)
            self._check(step, model)
            if resident:
                self._models[step] = model

    @classmethod
    def from_modules(
        cls, models: Mapping[int, nn.Module], site: str, *, device: str | torch.device = "cpu"
    ) -> "SnapshotSet":
        """Return the snapshots of models in memory, which are put into evaluation mode."""
        loads = {step: lambda model=model: model for step, model in models.items()}
        return cls(loads, site, device=device)

    @classmethod
    def from_dirs(
        cls,
        paths: Mapping[int, Path],
        site: str,
        *,
        dtype: torch.dtype = torch.float32,
        resident: bool = True,
        device: str | torch.device = "cpu",
    ) -> "SnapshotSet":
        """Return the snapshots in folders of transformers causal language models.

        Needs the extra `hf`. `find_snapshots` makes `paths` of a folder of folders.

        Raises
        ------
        ValueError
            As for the class, or if a folder holds no model, or tokenizers differ.
        """
        _check_tokenizers(paths)
        return cls(
            {step: lambda path=path: _pretrained(path, dtype) for step, path in paths.items()},
            site,
            resident=resident,
            device=device,
        )

    @classmethod
    def from_hub(
        cls,
        repository: str,
        revisions: Mapping[int, str],
        site: str,
        *,
        dtype: torch.dtype = torch.float32,
        resident: bool = True,
        device: str | torch.device = "cpu",
    ) -> "SnapshotSet":
        """Return the snapshots that are revisions of one hub repository, by step.

        Needs the extra `hf`; the weights go to the hub's own cache.

        Raises
        ------
        ValueError
            As for `from_dirs`, or if a revision is missing.
        """
        paths = {step: _download(repository, name) for step, name in revisions.items()}
        return cls.from_dirs(paths, site, dtype=dtype, resident=resident, device=device)

    def model(self, step: int) -> nn.Module:
        """Return the model of a step, on the device, in evaluation mode.

        Raises
        ------
        ValueError
            If there is no such snapshot.
        """
        if step not in self._load:
            raise ValueError(f"there is no snapshot of step {step}; there are {self.steps}")
        if step in self._models:
            return self._models[step]
        return self._load[step]().to(self.device).eval()

    def activations(self, tokens: Integer[Tensor, "N T"]) -> Float[Tensor, "N T S D"]:
        """Return the activations of all snapshots at every position, float32, on the CPU.

        Raises
        ------
        ValueError
            If a token id is outside of the vocabulary, or an activation is not finite.
        """
        N, T = tokens.shape
        out = torch.empty(N, T, len(self.steps), self.d_model)
        for rows, s, chunk in self.chunks(tokens):
            out[rows, :, s] = chunk.float()
        return out

    def chunks(
        self, tokens: Integer[Tensor, "N T"]
    ) -> Iterator[tuple[slice, int, Float[Tensor, "n T D"]]]:
        """Yield sequences, snapshot index and activations, snapshot by snapshot.

        Each snapshot's model is used for all sequences before the next one is.

        Raises
        ------
        ValueError
            As for `activations`.
        """
        self._check_tokens(tokens)
        size = max(1, FORWARD_TOKENS // max(1, tokens.shape[1]))
        for s, step in enumerate(self.steps):
            model = self.model(step)
            for start in range(0, len(tokens), size):
                rows = slice(start, min(start + size, len(tokens)))
                found = at_site(model, self.site, tokens[rows].to(self.device)).cpu()
                _check_finite(found, tokens[rows], step, self.site)
                yield rows, s, found

    def _check(self, step: int, model: nn.Module) -> None:
        check_site(model, self.site, step)
        probe = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        found = at_site(model, self.site, probe)
        for name, value in (("d_model", found.shape[-1]), ("vocabulary", _vocabulary(model))):
            known = getattr(self, name) or value
            if value != known:
                raise ValueError(
                    f"{name} is {value} at step {step} but {known} at step {self.steps[0]}; "
                    "snapshots are of one run, so leave that one out"
                )
            setattr(self, name, known)
        names = {name for name, _ in model.named_modules()}
        self._names = self._names or names
        if others := sorted(names ^ self._names):
            raise ValueError(
                f"the models of steps {self.steps[0]} and {step} differ: one has no "
                f"{others[0]!r}; snapshots are of one run, so leave that one out"
            )

    def _check_tokens(self, tokens: Tensor) -> None:
        if not tokens.numel():
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give at least one token")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or (self.vocabulary and high >= self.vocabulary):
            raise ValueError(
                f"token id {low if low < 0 else high} is outside of the models' vocabulary of "
                f"{self.vocabulary}; use their own tokenizer"
            )


def find_snapshots(folder: Path | str) -> dict[int, Path]:
    """Return the model folders in a folder by the number at the end of their names.

    `step-000000064`, `checkpoint-500` and `step1000` are such names, `meristem grow` writes the
    first. A folder counts if it holds a `config.json`.

    Raises
    ------
    ValueError
        If there is none, or two have one number.
    """
    found: dict[int, Path] = {}
    for path in sorted(Path(folder).glob("*/config.json")):
        number = re.search(r"(\d+)$", path.parent.name)
        if number is None:
            continue
        step = int(number[1])
        if step in found:
            raise ValueError(
                f"{path.parent} and {found[step]} are both of step {step}; keep one of them"
            )
        found[step] = path.parent
    if not found:
        raise ValueError(
            f"{folder} holds no snapshot: a folder whose name ends with its step, such as "
            "step-1000, and which holds config.json and weights"
        )
    return dict(sorted(found.items()))


class _StopForward(Exception):
    """Carries the activation out of a forward pass that has come to its site."""


@torch.no_grad()
def at_site(model: nn.Module, site: str, tokens: Integer[Tensor, "N T"]) -> Float[Tensor, "N T D"]:
    """Return the output of a submodule; nothing above it is computed."""
    found: list[Tensor] = []

    def stop(module: nn.Module, inputs: object, output: Any) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])
        raise _StopForward

    handle = model.get_submodule(site).register_forward_hook(stop)
    try:
        model(tokens)
    except _StopForward:
        return found[0]
    finally:
        handle.remove()
    raise ValueError(f"the forward pass never comes to site {site!r}; give a module that it uses")


def check_site(model: nn.Module, site: str, step: int) -> None:
    """Raise a ValueError that lists the nearest names if a model has no such submodule."""
    names = [name for name, _ in model.named_modules() if name]
    if site not in names:
        near = difflib.get_close_matches(site, names, n=LISTED_SITES, cutoff=0.0)
        raise ValueError(
            f"the model of step {step} has no site {site!r}; the nearest are {', '.join(near)}"
        )


def _vocabulary(model: nn.Module) -> int:
    """Return the number of input embeddings, 0 if the model has none."""
    if hasattr(model, "get_input_embeddings"):
        return cast("Any", model).get_input_embeddings().num_embeddings
    embeddings = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    return max((each.num_embeddings for each in embeddings), default=0)


def _check_finite(found: Tensor, tokens: Tensor, step: int, site: str) -> None:
    bad = (~found.isfinite()).nonzero()
    if bad.numel():
        n, t, d = bad[0].tolist()
        raise ValueError(
            f"the activation of token {int(tokens[n, t])} at position {t}, site {site!r} of step "
            f"{step} is {float(found[n, t, d])}; load the models in a wider dtype, or leave that "
            "step out"
        )


def _pretrained(path: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 an extra

    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no causal language model ({error})") from error
    model.config.use_cache = False
    return model


def _download(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 an extra
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    def get(patterns: Sequence[str]) -> Path:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))

    plain = ("*.json", "*.model", "*.txt", "*.safetensors")
    try:
        folder = get(plain)
        return folder if any(folder.glob("*.safetensors")) else get((*plain, "*.bin"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"revision {revision!r} of {repository!r} cannot be had ({error}); check its name"
        ) from error


def _check_tokenizers(paths: Mapping[int, Path]) -> None:
    """Refuse snapshots whose folders hold different vocabularies."""
    found = {step: value for step, path in paths.items() if (value := _vocabulary_of(path))}
    first = min(found, default=0)
    for step, value in found.items():
        if value != found[first]:
            raise ValueError(
                f"the tokenizers of steps {first} and {step} differ ({paths[first]} and "
                f"{paths[step]}); the same ids must be the same tokens at every snapshot"
            )


def _vocabulary_of(folder: Path) -> str | None:
    """Return a hash of what decides the token ids, None if the folder has no tokenizer."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    plain = json.loads(path.read_text(encoding="utf-8"))
    return digest({"model": plain.get("model"), "added": plain.get("added_tokens")})
