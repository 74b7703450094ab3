"""What dreaming takes, and what it reads from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.analyses.dreaming import TABLES, dreamed, saes
from saeflow.analyses.dreaming.settings import GRADIENT, Dreaming
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study


def work(study: Study, own: Dreaming, scope: Scope) -> list[StagePlan]:
    """Every child through the whole model, and every prompt of the population with a gradient,
    round by round; what stands before a prompt is run once, and counts for nothing."""
    asked, search = own.targets, own.search
    count = len(asked.together) + len(asked.directions) + len(asked.logits)
    for name in saes(study, own):
        named = asked.latents.get(name)
        count += asked.count if named is None else len(named)
    prompts = search.rounds * search.population * (search.children + GRADIENT)
    tokens = count * len(search.methods) * prompts * search.length
    names = dreamed(study, own)
    return [
        StagePlan(
            "dreaming",
            len(names),
            tokens,
            tokens * scope.flop(),
            count * len(search.methods) * 8 * own.report.prompts * search.length * 40,
            f"{counted(count, 'target')}, each by {', '.join(search.methods)}, "
            f"{counted(prompts, 'prompt')} a search",
            [f"dreaming/{name}/{table}.parquet" for name in names for table in TABLES],
        )
    ]


def needs(study: Study, own: Dreaming) -> list[Need]:
    """Files of directions."""
    made = "dreaming/without-sae/targets.parquet"
    return [
        Need(f"dreaming.targets.directions.{name}", path, Path(path).is_file(), made)
        for name, path in own.targets.directions.items()
    ]
