"""What tasks take, and what they read from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.tasks import TABLES, saes
from saeflow.analyses.tasks.lists import file_of
from saeflow.analyses.tasks.settings import Tasks
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study

EXAMPLE_TOKENS, QUESTION_TOKENS = 6, 8
"""Of an example and of a prompt without one, about; what is not known before they are tokenised."""
TRIED = 100
"""Vectors that are tried beside a cleaned one, about."""


def work(study: Study, own: Tasks, scope: Scope) -> list[StagePlan]:
    """Prompts with examples once, and prompts without them once for every vector and step."""
    tasks, cleaned = own.lists.names, saes(study, own)
    shown = (own.prompts.shots + 1) * EXAMPLE_TOKENS
    read = 3 * own.prompts.drawn * shown
    vectors = 8 * len(own.vectors.kinds) * (len(own.vectors.scales) + 1)
    tried = vectors * own.lists.most // 4 * QUESTION_TOKENS
    stages = [
        StagePlan(
            "tasks",
            2,
            len(tasks) * (read + tried),
            len(tasks) * (read + tried) * scope.flop(),
            4 * 3 * len(tasks) * scope.width,
            f"{counted(len(tasks), 'task')}, {counted(own.prompts.drawn, 'prompt')} of "
            f"{counted(own.prompts.shots, 'example')}; {counted(vectors, 'vector')} tried",
            [f"tasks/{table}.parquet" for table in TABLES],
        )
    ]
    if own.cleaning and cleaned:
        steps = len(own.cleaning.penalties) * own.cleaning.steps
        tokens = (3 * steps * own.cleaning.batch + TRIED * own.lists.most // 4) * QUESTION_TOKENS
        jobs = len(tasks) * len(cleaned)
        stages.append(
            StagePlan(
                "tasks: cleaning",
                jobs + len(cleaned),
                jobs * tokens,
                jobs * tokens * scope.flop(),
                0,
                f"{counted(len(tasks), 'vector')} in {counted(len(cleaned), 'SAE')}, at most "
                f"{counted(steps, 'step')} each",
                [f"tasks/{name}/latents.parquet" for name in cleaned],
            )
        )
    return stages


def needs(study: Study, own: Tasks) -> list[Need]:
    """Files of pairs."""
    return [
        Need(
            f"tasks.lists.files.{task}",
            path,
            shipped_or_own(path).is_file(),
        )
        for task in own.lists.files
        if (path := file_of(own.lists, task))
    ]
