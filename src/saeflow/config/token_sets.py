"""Token sets of the user: word lists and regular expressions, in YAML files."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from saeflow.config.section import Complaint, Name, Section, Text, refuse


class TokenSet(Section):
    """One token set: the tokens that are one of the words, or in which the pattern is found."""

    description: Text | None = None
    """What it holds, for tables and figures."""
    words: list[Text] = Field(default=[])
    """Whole words, with or without a space before them. One in lower case matches any case, others
    match as they are written. A word that is several tokens matches none."""
    pattern: str | None = None
    """A regular expression, searched in the text of each token; a token that opens a word begins
    with a space."""

    @model_validator(mode="after")
    def _holds_something(self) -> TokenSet:
        complaints: list[Complaint] = []
        if not self.words and self.pattern is None:
            complaints.append(("", "is empty; give words, a pattern or both"))
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            reason = f"{self.pattern!r} is no regular expression ({error}); correct it"
            complaints.append(("pattern", reason))
        refuse(complaints)
        return self


class TokenSets(Section):
    """One file of token sets."""

    sets: dict[Name, TokenSet] = Field(min_length=1)
    """By name."""
