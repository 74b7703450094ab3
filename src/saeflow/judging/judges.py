"""The judges by name; a new judge is one function and one entry here."""

from __future__ import annotations

from saeflow.judging.lexical import judge_lexical
from saeflow.judging.planted import judge_planted
from saeflow.judging.verdicts import JudgeFunction

JUDGES: dict[str, JudgeFunction] = {
    "planted": judge_planted,
    "lexical": judge_lexical,
}
