"""Who scores completions, and how paid calls are made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from saeflow.config.section import Section, Text, Unique, refuse
from saeflow.config.sections.judges import JUDGES, JudgeKind

REASONING = r"o\d|gpt-([5-9]|\d\d)"
"""Opens the names of OpenAI's models that think before they answer and refuse ``temperature`` and
``max_tokens``."""


if TYPE_CHECKING:
    JudgeName = str
else:
    JudgeName = Literal[tuple(JUDGES)]


class Judge(Section):
    """Who scores completions, between 0 and 1, for behaviour and for coherence."""

    kind: JudgeName = Field(
        default="planted",
        description=". ".join(f"``{kind.name}``: {kind.brief}" for kind in JUDGES.values()) + ".",
    )
    saturation: float = Field(default=0.2, gt=0, le=1)
    """``lexical``: share of a completion's words, from the goal's list, that scores 1."""
    model: Text | None = None
    """``openai``: the name of the model that judges."""
    template: Literal["rating@1", "continuation@1"] = "rating@1"
    """``openai``: how a score is asked for. ``rating@1``: the whole text, 1 to 10.
    ``continuation@1``: the prompt and its continuation apart, and only the continuation counts."""
    repeats: int = Field(default=1, ge=1, le=20)
    """``openai``: times every question is asked; the score is the mean."""
    parameters: dict[str, int | float | str | None] | None = None
    """``openai``: what else a request says. Null is ``{temperature: 0, max_tokens: 50}``, and for
    OpenAI's models that reason (o1, o3, gpt-5 and the like) ``{max_completion_tokens: 4000}``,
    which is room for thoughts. Other models that reason want more ``max_tokens``."""
    protocols: Annotated[list[Literal["product", "three_way"]], Unique] = Field(default=["product"])
    """``openai``: ``product`` scores behaviour and coherence. ``three_way`` also scores concept,
    instruction and fluency, 0 to 2 each, whose harmonic mean is a table of its own."""

    @property
    def traits(self) -> JudgeKind:
        """What is known of judges of this kind."""
        return JUDGES[self.kind]

    @property
    def sampling(self) -> dict[str, int | float | str | None]:
        """What a request says besides the question: `parameters`, or what fits the model."""
        if self.parameters is not None:
            return self.parameters
        reasons = re.match(REASONING, (self.model or "").rpartition("/")[2])
        return {"max_completion_tokens": 4000} if reasons else {"temperature": 0, "max_tokens": 50}

    @model_validator(mode="after")
    def _complete(self) -> Judge:
        complaints = []
        if self.traits.is_hosted and not self.model:
            complaints.append(("model", f"is needed by '{self.kind}'; name the model that judges"))
        if not self.traits.is_hosted and "three_way" in self.protocols:
            reason = f"'{self.kind}' answers no such questions; set kind: openai, or product alone"
            complaints.append(("kind", reason))
        if "product" not in self.protocols:
            reason = "'product' must be one of them; scales are chosen by it"
            complaints.append(("protocols", reason))
        refuse(complaints)
        return self


class Price(Section):
    """What a model's tokens cost, US dollars per million."""

    input: float = Field(ge=0)
    """Of the question."""
    output: float = Field(ge=0)
    """Of the answer."""


def _variable(name: str) -> str:
    if not re.fullmatch(
        r"[A-Z_][A-Z0-9_]*", name
    ):  # what stands there may be a key, and is not repeated
        raise ValueError(
            "must be the name of a variable, in capitals; the key itself must not stand in a config"
        )
    return name


class Calls(Section):
    """How an endpoint is called and what may be spent; no score depends on it, and no change of it
    reruns anything."""

    base_url: Text | None = None
    """Where the endpoint is, such as ``http://localhost:8000/v1`` (vLLM),
    ``http://localhost:11434/v1`` (Ollama) or ``https://openrouter.ai/api/v1``; null is OpenAI
    itself, or what ``OPENAI_BASE_URL`` says. Answers are kept whatever the address. Names,
    passwords and keys must not stand in it: it is recorded, and ``key`` is for them."""
    mode: Literal["live", "batch"] = "live"
    """``batch``: the Batch API, at half the price and within a day; a run that was interrupted goes
    on waiting for the batches that it submitted."""
    key: Annotated[str, AfterValidator(_variable)] = "OPENAI_API_KEY"
    """Name of the variable that holds the key, in capitals, in the environment or in ``.env``."""
    concurrency: int = Field(default=16, ge=1, le=1024)
    """Most calls of one job at a time; fewer while the endpoint answers 429."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds that one request may take from beginning to end."""
    attempts: int = Field(default=6, ge=1)
    """Requests per question before it is given up, answers of 429 not counted."""
    backoff: float = Field(default=1.0, gt=0)
    """Seconds before a second request, doubled for each that follows."""
    poll: float = Field(default=60.0, gt=0)
    """``batch``: seconds between looks at it."""
    max_usd: float | None = Field(default=None, gt=0)
    """US dollars that the study may spend in all; what was answered until then is kept."""
    max_calls: int | None = Field(default=None, ge=1)
    """Calls that the study may make in all."""
    price: Price | None = None
    """In place of the built-in price of the model; a model of your own costs ``{input: 0, output:
    0}``."""
