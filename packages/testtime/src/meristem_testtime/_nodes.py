"""What a search is made of: extents, limits, costs, partial solutions and results."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far one expansion goes: to a stop string or `max_tokens`; at most `max_steps` deep."""

    stop: tuple[str, ...] = ("\n\n",)
    max_tokens: int = 256
    max_steps: int = 40

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.max_steps < 1:
            raise ValueError(
                f"max_tokens ({self.max_tokens}) and max_steps ({self.max_steps}) are at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits, checked before samples are asked for; None is no limit.

    Attributes
    ----------
    tokens, expansions
        Most new tokens and expansions (samples drawn) of one question.
    run_tokens, run_seconds
        Most new tokens of all questions of a search together, and seconds from its start. What was
        asked for before they were spent is still waited for, and counted. Answers from a journal
        count too, so a run that is resumed with more goes on where this one ended.
    """

    tokens: int | None = None
    expansions: int | None = None
    run_tokens: int | None = None
    run_seconds: float | int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} ({value}) must be at least 0, or None for no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a question cost: prompt tokens sent, new tokens, samples, and expansions asked for."""

    prompt_tokens: int = 0
    tokens: int = 0
    samples: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """A partial solution.

    Attributes
    ----------
    question
        Its question.
    parent
        The node it continues; None for the root.
    place
        Which child of its parent it is; -1 for the root.
    ids, logprobs
        Its own tokens and their log-probabilities.
    depth
        Number of steps, 0 for the root.
    text
        The text of the whole path, the prompt left out.
    finished
        Whether the model ended the solution or it was cut.
    truncated
        Whether it was cut by the limit of steps or tokens; or aborted, or ended as its confidence
        fell: then it is not finished.
    value
        What the guide says; 0 without a guide.
    confidence
        Of its own tokens, if the algorithm asked for it.
    """

    question: str
    parent: "Node | None"
    place: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    depth: int
    text: str
    finished: bool
    truncated: bool
    value: float = 0.0
    confidence: tuple[float, ...] = ()

    def path(self) -> list["Node"]:
        """Return the nodes from the first step to this one, the root left out."""
        found: list[Node] = []
        node = self
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def path_ids(self) -> tuple[int, ...]:
        """Return the tokens from the root to this node, the prompt left out."""
        return tuple(i for node in self.path() for i in node.ids)

    def address(self) -> tuple[int, ...]:
        """Return the places that lead from the root to this node."""
        return tuple(node.place for node in self.path())


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found for one question.

    Attributes
    ----------
    question
        Its name.
    solutions
        Finished nodes in the order in which the algorithm gave them.
    weights
        Their weights in a vote, at least 0.
    nodes
        Every node that was made, parents first.
    cost
        What it took.
    exhausted
        Whether a budget ended the search, its own or that of the run.
    log_normaliser
        Of particles: the logarithm of the estimated normalising constant; else None.
    cached_tokens
        Those of the prompt tokens that the engine had computed before, as far as it says.
    seconds
        From the question's begin to its end; others run beside it. Like the cached tokens they are
        of this run alone: a search that is repeated or resumed gives an equal result with others.
    """

    question: str
    solutions: tuple[Node, ...]
    weights: tuple[float, ...]
    nodes: tuple[Node, ...]
    cost: Cost
    exhausted: bool
    log_normaliser: float | None
    cached_tokens: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)


STEP, UNLIMITED = Step(), Budget()
