"""The ten papers, and how far each is."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from meristem._rows import Row

State = Literal["not yet", "partly", "complete"]
Reproduction = Callable[[Path, bool, int], list[Row]]  # run folder, quick, seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A paper and the part of Meristem that reproduces it."""

    id: str  # arXiv
    title: str
    part: str  # package or app
    state: State
    module: str | None = None  # of meristem.reproduce, with a function `reproduce`

    def load(self) -> Reproduction:
        """Return the function that reproduces the paper; only papers with a module have one."""
        return import_module(f"meristem.reproduce.{self.module}").reproduce


PAPERS = {
    paper.id: paper
    for paper in (
        Paper(
            id="2509.17196",
            title="Evolution of Concepts in Language Model Pre-Training",
            part="crosscoders",
            state="partly",
            module="_evolution_of_concepts",
        ),
        Paper(
            id="2508.15763",
            title="Intern-S1: A Scientific Multimodal Foundation Model",
            part="moe",
            state="not yet",
        ),
        Paper(
            id="2507.05197",
            title="Pre-Trained Policy Discriminators are General Reward Models",
            part="polar",
            state="not yet",
        ),
        Paper(
            id="2506.13216",
            title="Capability Salience Vector: Fine-grained Alignment of Loss and Capabilities "
            "for Downstream Task Scaling Law",
            part="salience",
            state="not yet",
        ),
        Paper(
            id="2507.00018",
            title="Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections",
            part="losses",
            state="partly",
            module="_implicit_reward",
        ),
        Paper(
            id="2502.17151",
            title="Dynamics near a class of nonhyperbolic fixed points",
            part="dynamics",
            state="partly",
            module="_degenerate_saddles",
        ),
        Paper(
            id="2502.16497",
            title="The Stability of Pointwise Hyperbolic Systems",
            part="dynamics",
            state="partly",
            module="_pointwise_hyperbolicity",
        ),
        Paper(
            id="2502.12215",
            title="Revisiting the Test-Time Scaling of o1-like Models: Do they Truly Possess "
            "Test-Time Scaling Capabilities?",
            part="testtime",
            state="complete",
            module="_test_time_scaling",
        ),
        Paper(
            id="2412.14135",
            title="Scaling of Search and Learning: A Roadmap to Reproduce o1 from Reinforcement "
            "Learning Perspective",
            part="testtime, rewards",
            state="partly",
            module="_search_and_learning",
        ),
        Paper(
            id="2412.10056",
            title="GAOKAO-Eval: Does High Scores Truly Reflect Strong Capabilities in LLMs?",
            part="rasch",
            state="complete",
            module="_gaokao_eval",
        ),
    )
}
