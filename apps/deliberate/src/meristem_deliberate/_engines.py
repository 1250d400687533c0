"""From the word after --engine to an engine, and from a question to its prompt."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meristem_core.command import UsageError
from meristem_deliberate._config import DeliberateConfig
from meristem_testtime import Engine

PACKAGES = {
    "hf": "'meristem-deliberate[hf]'",
    "openai": "'meristem-deliberate[http]'",
    "vllm": "vllm",
}
FORMS = "hf:PATH, vllm:PATH or openai:URL"


@contextmanager
def open_engine(config: DeliberateConfig) -> Generator[Engine, None, None]:
    """Open the engine that `config` names.

    Raises
    ------
    UsageError
        If the word, a path or a name cannot be used, or a package is missing.
    """
    kind, _, where = config.engine.partition(":")
    if kind not in ("hf", "vllm", "openai") or not where:
        raise UsageError(f"--engine is {config.engine!r}; write {FORMS}")
    try:
        if kind == "hf":
            yield _hugging_face(_folder(where, "--engine"))
        elif kind == "vllm":
            from meristem_testtime.vllm import VLLMEngine

            with VLLMEngine(_folder(where, "--engine")) as engine:
                yield engine
        else:
            with _server(config, where) as engine:
                yield engine
    except ModuleNotFoundError as error:
        mend = {"vllm": "vllm"}.get(
            kind, f"'meristem-testtime[{'http' if kind == 'openai' else 'hf'}]'"
        )
        raise UsageError(
            f"--engine {config.engine} needs {error.name}; install it: pip install {mend}"
        ) from error


def prompt_of(engine: Engine, text: str) -> str:
    """Return what the engine is given: a chat's opening if its tokenizer has a template."""
    tokenizer: Any = getattr(engine, "tokenizer", None)
    if getattr(tokenizer, "chat_template", None) is None:
        return text
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _hugging_face(folder: str) -> Engine:
    import torch
    import transformers

    from meristem_testtime.hf import HFEngine

    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return HFEngine(model.eval().to(device), tokenizer, name=folder)
    except (ValueError, OSError) as error:
        raise UsageError(f"--engine hf:{folder}: {error}") from error


def _server(config: DeliberateConfig, url: str) -> Any:
    from meristem_testtime.http import ChatEngine, OpenAIEngine

    if not config.model:
        raise UsageError("--engine openai:URL needs --model, the model's name on the server")
    key = os.environ.get("OPENAI_API_KEY")
    try:
        if not config.tokenizer:
            return ChatEngine(url, config.model, api_key=key)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(_folder(config.tokenizer, "--tokenizer"))
        return OpenAIEngine(url, config.model, tokenizer, api_key=key)
    except ValueError as error:
        raise UsageError(f"--engine {config.engine}: {error}") from error


def _folder(text: str, option: str) -> str:
    if not Path(text).is_dir():
        raise UsageError(f"{option}: {text} is no folder; give the folder of a saved model")
    return text
