"""What the user decides."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

PROMPT = "{question}\n\nThink step by step and put your final answer within \\boxed{}."


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliberateConfig:
    """Sample, vote and revise on a file of questions, and report what it bought.

    Questions are JSON lines: id, question, answer, and optionally options, a list. The same command
    goes on from where it was stopped. `meristem deliberate replay traces.csv` measures samples that
    were drawn elsewhere. On a CPU: --engine hf:runs/grow/pretrain/snapshots/step-000000500 --n 8
    --max-tokens 32.
    """

    questions: Annotated[Path, tyro.conf.Positional]
    """The file, .jsonl."""

    engine: str
    """hf:PATH, vllm:PATH, or openai:URL of a server, such as openai:http://localhost:8000/v1; its
    key is read from OPENAI_API_KEY."""

    out: Path
    """Run folder: samples.jsonl, traces.csv, result.json, report.html."""

    model: str = ""
    """Name of the model on the server."""

    tokenizer: str = ""
    """Folder of the server's tokenizer; with it, revision and search by token ids (vLLM)."""

    n: int = 16
    """Samples of a question."""

    temperature: float = 0.7
    """Of every sample."""

    top_p: float = 1.0
    """Of every sample: the mass of the likeliest tokens that are drawn from."""

    top_k: int | None = None
    """Of every sample: the number of the likeliest tokens that are drawn from; not for chats."""

    max_tokens: int = 32_000
    """Most new tokens of a sample."""

    revise: int = 0
    """Revisions of a chain beside the samples; 0 for none."""

    chains: int = 1
    """Chains of a question, each revised so often; their last answers vote."""

    cue: tuple[str, ...] = ("Wait",)
    """What a revision begins with; of several, such as Wait Alternatively, the one that the model
    finds likelier."""

    kind: Literal["auto", "math", "number", "choice"] = "auto"
    """How answers are found; auto is choice where there are options, else math."""

    prompt: str = PROMPT
    r"""What is asked; {question} stands for the question and its options."""

    limit: int | None = None
    """Only the first so many questions."""

    budget: int | None = None
    """Most new tokens of the run, those of its journal included; questions are asked in order, in
    groups of about 64 samples, until they are spent. With more, the same command goes on."""

    seed: int = 0
    """Of every sample and interval."""

    json: bool = False
    """Print the result as JSON instead of a summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """Measure samples from a table: votes, curves, lengths, revisions, with intervals.

    Columns question, sample, tokens, answer (class within the question, -1 for none), correct;
    optional model, dataset, wait, alternatively, capped, score:NAME, and step: rows of step 1, 2...
    are the revisions of the sample. CSV or JSON lines, .gz too.
    """

    traces: Annotated[Path, tyro.conf.Positional]
    """The table."""

    out: Path
    """Folder for result.json and report.html."""

    by: str = "model,dataset"
    """Columns that separate strata."""

    ks: str = ""
    """Numbers of samples, such as 1,2,4,8; by default the powers of two and all."""

    seed: int = 0
    """Of every interval and random order."""

    json: bool = False
    """Print the result as JSON instead of a summary."""
