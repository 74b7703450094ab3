"""Texts with labels: where they lie, and what their columns are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator

from saeflow.config.section import Complaint, InputPath, Name, Section, Text, refuse
from saeflow.config.sections.prompts import Message
from saeflow.config.sections.published import LABELLED_FILES, DataPackage, Published


class LabelledText(Section):
    """One text with its label or number, written in the config."""

    text: Text | None = None
    """The text."""
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    """In place of `text`: messages for the model's chat template."""
    label: Text | None = None
    """Its class, in words."""
    value: float | None = None
    """In place of `label`: its number."""
    group: Text | None = None
    """What it belongs to: texts of one group are never on both sides of a split."""

    @model_validator(mode="after")
    def _is_one(self) -> LabelledText:
        complaints: list[Complaint] = []
        if (self.text is None) == (self.messages is None):
            complaints.append(("text", "give either text or messages"))
        if (self.label is None) == (self.value is None):
            complaints.append(("label", "give either label or value"))
        refuse(complaints)
        return self


class TextSource(Section):
    """Texts with labels or numbers: one file, or texts of the config itself."""

    path: InputPath | None = None
    """A .csv, .csv.zst, .jsonl or .parquet file, in the folder that Snakemake works in or else in
    the checkout. ``${NAME}`` is read from the environment."""
    published: Published | None = None
    """Such a file of a data set on a hub, in place of `path`."""
    package: DataPackage | None = None
    """Such a file of a package of Python, in place of `path`."""
    examples: list[LabelledText] | None = Field(default=None, min_length=2)
    """The texts themselves, in place of `path`."""
    text: Text = "text"
    """The column of a file that holds the text, or messages as a list of role and content."""
    label: Text | None = None
    """The column that holds the class; ``label`` where `value` is not given either."""
    value: Text | None = None
    """The column that holds a number, in place of `label`."""
    group: Text | None = None
    """The column that says what a row belongs to, such as an author: rows of one group are never on
    both sides of a split. Null: every text for itself."""
    classes: dict[Text, Text] | None = Field(default=None, min_length=1)
    """The class that each entry of the column `label` stands for, as text; several may stand for
    one class, and rows with other entries are left out. Null: every entry is a class."""

    @model_validator(mode="after")
    def _has_one_source(self) -> TextSource:
        sources = ("path", "published", "package", "examples")
        given = [key for key in sources if getattr(self, key) is not None]
        complaints: list[Complaint] = []
        if len(given) != 1:
            reason = f"give one of {', '.join(sources)}; this gives {' and '.join(given) or 'none'}"
            complaints.append(("", reason))
        if self.label and self.value:
            complaints.append(("value", "stands beside label; give one of them"))
        if self.value and self.classes:
            complaints.append(("classes", "are of a column label, and value names numbers"))
        if self.path and not self.path.endswith(LABELLED_FILES):
            reason = f"'{self.path}' must end in one of {', '.join(LABELLED_FILES)}; convert it"
            complaints.append(("path", reason))
        if self.published and not (self.published.file or "").endswith(LABELLED_FILES):
            complaints.append(("published.file", f"must end in one of {', '.join(LABELLED_FILES)}"))
        if self.examples and len({each.value is None for each in self.examples}) > 1:
            complaints.append(("examples", "some have a label and some a value; give all one kind"))
        refuse(complaints)
        return self

    def classes_of(self, labels: Iterable[Text | None]) -> set[Text]:
        """The classes that entries of the column of labels stand for."""
        named = {label for label in labels if label is not None}
        if self.classes is None:
            return named
        return {self.classes[label] for label in named if label in self.classes}

    @property
    def label_column(self) -> str | None:
        """The column of classes; None where `value` names numbers."""
        return None if self.value else self.label or "label"


class LabelledTexts(TextSource):
    """A data set of texts with labels or numbers."""

    task: Text | None = None
    """What is told of a text, in words, for tables and pages."""
    licence: Text | None = None
    """Under which the texts may be used, in words."""
    shifted: dict[Name, TextSource] = Field(default={})
    """Test sets of another distribution, by name: what is fitted to this set is tested on them.
    They are coded as it is."""


class Catalogue(Section):
    """A file that names sets of labelled texts."""

    sets: dict[Name, LabelledTexts] = Field(min_length=1)
    """By name."""
