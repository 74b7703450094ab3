"""What is asked of the geometry of words and numbers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import (
    Complaint,
    HookName,
    LocalPath,
    Name,
    Position,
    Section,
    Text,
    Unique,
    refuse,
)
from saeflow.config.sections.labelled import TextSource

LEAST_WORDS = 5
"""In a circle: with four words, one arrangement in three fits as well as the right one."""
WORDS: dict[str, tuple[str, ...]] = {
    "weekdays": (
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ),
    "months": (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
}
TEMPLATES: dict[str, tuple[str, ...]] = {
    "weekdays": (
        "Let us meet on {}",
        "It happened last {}",
        "The shop is closed every {}",
        "I will call you on {}",
        "Her favourite day is {}",
        "The report is due on {}",
    ),
    "months": (
        "The wedding is in {}",
        "It rained all through {}",
        "He was born in {}",
        "We moved house last {}",
        "School begins in {}",
        "The best month is {}",
    ),
}
PATTERNS = {
    "years": r"^\s*(?:1\d|20)\d\d$",
    "decades": r"^\s*(?:1\d|20)\d0s$",
    "numbers": r"^\s*\d+$",
}
"""Sets that are told by a pattern, of a word or of a token."""
SLOT = "{}"


def _slots(texts: list[str], key: str) -> list[Complaint]:
    return [
        (f"{key}.{place}", f"'{text}' must hold {SLOT} once, where the word stands")
        for place, text in enumerate(texts)
        if text.count(SLOT) != 1
    ]


class StepPrompt(Section):
    """A text whose next word is another of the group, so many steps further round."""

    prompt: Text
    """With ``{}`` where a word stands, such as ``The day after {} is``."""
    step: int
    """How many words further the answer stands: 1 for the day after."""


class WordGroup(Section):
    """Words with an order that closes, such as weekdays."""

    kind: Literal["weekdays", "months"] | None = None
    """A built-in group, in place of `words`."""
    words: Annotated[list[Text], Unique] | None = None
    """The words in their order, in place of `kind`: at least five."""
    templates: Annotated[list[Text], Unique] | None = None
    """Texts with ``{}`` in which every word stands, all else equal; by default those of `kind`.
    Texts are the units of intervals."""
    prompts: list[StepPrompt] = Field(default=[])
    """Texts in which words are turned round the circle, and what the model says then. Each word
    and answer must be one token."""

    @model_validator(mode="after")
    def _is_whole(self) -> WordGroup:
        complaints: list[Complaint] = []
        if (self.kind is None) == (self.words is None):
            complaints.append(("words", "give either kind or words"))
        elif len(self.members) < LEAST_WORDS:
            reason = f"are {len(self.members)}; a circle needs {LEAST_WORDS}, since fewer fit any"
            complaints.append(("words", f"{reason} order too well; add words"))
        if self.kind is None and not self.templates:
            complaints.append(("templates", "are needed beside words: some texts with {}"))
        elif len(self.texts) < 2:
            complaints.append(("templates", "are one text, and intervals need two; add texts"))
        complaints += _slots(self.texts, "templates")
        complaints += _slots([each.prompt for each in self.prompts], "prompts")
        for place, each in enumerate(self.prompts):
            if self.members and each.step % len(self.members) == 0:
                reason = f"{each.step} steps lead back to the word itself; give another number"
                complaints.append((f"prompts.{place}.step", reason))
        refuse(complaints)
        return self

    @property
    def members(self) -> list[str]:
        """The words in their order."""
        return list(self.words or WORDS.get(self.kind or "", ()))

    @property
    def texts(self) -> list[str]:
        """The texts in which words stand."""
        return list(self.templates or TEMPLATES.get(self.kind or "", ()))


class LinePrompts(Section):
    """Texts after which the model says one of two tokens, the one where numbers are high."""

    prompts: Annotated[list[Text], Field(min_length=1), Unique]
    """With ``{}`` where a text of the line stands, such as ``{} was born in the year 1``."""
    low: Text
    """A token of low numbers, such as ``8``."""
    high: Text
    """A token of high numbers, such as ``9``."""
    texts: int = Field(default=32, ge=4)
    """Texts of the line that stand in every prompt, at most."""
    steps: Annotated[list[float], Field(min_length=1), Unique] = Field(
        default=[-2.0, -1.0, 1.0, 2.0]
    )
    """How far the text's last token is moved along the line, in standard deviations of the texts'
    places on it."""

    @model_validator(mode="after")
    def _is_whole(self) -> LinePrompts:
        complaints = _slots(self.prompts, "prompts")
        if self.low == self.high:
            complaints.append(("high", "is the token of low numbers, too; name another"))
        if 0.0 in self.steps:
            complaints.append(("steps", "hold 0, which is told anyhow; leave it out"))
        refuse(complaints)
        return self


class NumberLine(Section):
    """Texts with numbers, and the direction along which the numbers rise."""

    texts: TextSource
    """The texts, with a column `value`."""
    position: Position = "last"
    """Where a text is read."""
    block: float = Field(gt=0)
    """Width of the blocks of numbers that are held out together, such as 10 for decades: what is
    said of a decade is fitted without it."""
    most: int = Field(default=2_000, ge=20)
    """Texts that are read, and of each that is read off; drawn at random where there are more."""
    read_off: dict[Name, TextSource] = Field(default={})
    """Other texts with numbers, by name, whose places on the line are read off: nothing of them is
    fitted."""
    cause: LinePrompts | None = None
    """Where the model is moved along the line; null leaves it out."""

    @model_validator(mode="after")
    def _has_numbers(self) -> NumberLine:
        complaints: list[Complaint] = []
        sources = {"texts": self.texts}
        sources |= {f"read_off.{name}": each for name, each in self.read_off.items()}
        for key, each in sources.items():
            if each.value is None and not (
                each.examples and all(text.value is not None for text in each.examples)
            ):
                complaints.append((f"{key}.value", "names the column of numbers; give it"))
        refuse(complaints)
        return self


class Points(Section):
    """What is read of the model."""

    groups: dict[Name, WordGroup] = Field(default={})
    """Words in a circle, by name."""
    lines: dict[Name, NumberLine] = Field(default={})
    """Texts along a line, by name."""
    hooks: Annotated[list[HookName], Field(min_length=1), Unique] | None = None
    """Where activations are read and moved: ``hook_resid_post`` of some layers. Null: the study's
    hook."""


class Nulls(Section):
    """What circles, lines and moves are held against."""

    pairs_of: int = Field(default=4, ge=2)
    """Principal components among which the best pair for a circle is sought."""
    word_orders: int = Field(default=9_999, ge=99)
    """Orders of the words in which the best pair is sought anew; of seven words all orders."""
    block_orders: int = Field(default=999, ge=19)
    """Orders of the blocks' numbers in which a line is fitted anew."""
    components: int = Field(default=10, ge=1)
    """Principal components that a line's angle to is told."""
    draws: int = Field(default=1_000, ge=50)
    """Draws of texts, blocks and words for intervals."""
    controls: int = Field(default=10, ge=2)
    """Random directions that the model is moved along, as far, beside every move."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals and nulls."""


class LatentGroup(Section):
    """Latents that stand for words of a set: those whose strongest contexts fire on one of them.

    Without a set they are the words of the group of the same name in `points`.
    """

    kind: Literal["weekdays", "months", "years", "decades", "numbers"] | None = None
    """A built-in set."""
    words: Annotated[list[Text], Field(min_length=1), Unique] | None = None
    """Words; one in lower case matches any case."""
    pattern: Text | None = None
    """A regular expression, searched in what fires."""
    token_set: Name | None = None
    """A set of `files`."""
    unit: Literal["token", "word"] = "token"
    """What is looked up in the set: the token that fires, or the whole word that it is part of, as
    for years whose digits are tokens each."""
    latents: dict[Name, Annotated[list[Annotated[int, Field(ge=0)]], Unique]] = Field(default={})
    """Latents by SAE, in place of those that contexts would find in it."""

    @model_validator(mode="after")
    def _is_one_set(self) -> LatentGroup:
        sets = ("kind", "words", "pattern", "token_set")
        given = [key for key in sets if getattr(self, key) is not None]
        complaints: list[Complaint] = []
        if len(given) > 1:
            complaints.append((given[1], f"stands beside {given[0]}; give one of them"))
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            reason = f"{self.pattern!r} is no regular expression ({error}); correct it"
            complaints.append(("pattern", reason))
        refuse(complaints)
        return self


class Latents(Section):
    """Latents that stand for words or numbers, and where their decoder rows lie."""

    groups: dict[Name, LatentGroup] = Field(default={})
    """Sets of words or tokens, by name."""
    files: Annotated[list[LocalPath], Unique] = Field(default=[])
    """YAML files with token sets, as those of `logit_lens.token_sets.files`."""
    saes: Annotated[list[Name], Unique] | None = None
    """SAEs whose latents are looked at; null is all that read the study's model. Of those at one
    hook every one is held against the next wider one."""
    share: float = Field(default=0.8, gt=0, le=1)
    """Least share of a latent's strongest contexts that fire on the set; where one word has as
    much, the latent is specific, else general."""
    contexts: int = Field(default=5, ge=1)
    """Strongest contexts that a latent must have, one per block of text."""
    texts: int = Field(default=5, ge=2)
    """Texts of a line on which a latent must fire to be given the mean of their numbers."""


class Geometry(Section):
    """Circles of words, lines of numbers, and whether the model goes by them."""

    points: Points = Points()
    latents: Latents | None = None
    """Which latents stand for words and numbers, and how they split over SAEs of several widths;
    null leaves it out."""
    nulls: Nulls = Nulls()
