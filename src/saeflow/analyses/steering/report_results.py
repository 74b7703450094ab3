"""What steering found, read from a study's folder for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from saeflow.analyses.steering.methods import PLANTED
from saeflow.analyses.steering.sample_texts import first_samples
from saeflow.analyses.steering.settings import Steering
from saeflow.analyses.steering.summary import BEST_SCHEMA, SUMMARY_SCHEMA
from saeflow.analyses.steering.tables import methods, of_chosen_latents
from saeflow.analyses.steering.target_rows import Planted, TargetRow, target_rows
from saeflow.config import Goal, read_goal
from saeflow.config.shipped import shipped_or_own
from saeflow.endpoint.ledger import Ledger, Usage
from saeflow.figures.style import words
from saeflow.report.folder import StudyFolder, joined_tables


class Cost(NamedTuple):
    """What judging by a model cost."""

    calls: int
    usd: float
    usage: list[Usage]


@dataclass(frozen=True, kw_only=True)
class SteeringResults:
    """What is known of a study's steering; what it does not have is empty."""

    settings: Steering
    sae: str
    """Whose latents are targeted."""
    layer: int
    """Of the study's hook."""
    summary: pl.DataFrame
    best: pl.DataFrame
    comparisons: pl.DataFrame = field(default_factory=pl.DataFrame)
    ratings: pl.DataFrame = field(default_factory=pl.DataFrame)
    targets: list[TargetRow] = field(default_factory=list)
    """The latents that goals target."""
    planted: Planted = field(default_factory=Planted)
    """Methods with the chosen targets and with those that are known to be the best; empty where
    none are known."""
    goals: dict[str, Goal] = field(default_factory=dict)
    """What the goals' files say."""
    cost: Cost | None = None
    searched: pl.DataFrame = field(default_factory=pl.DataFrame)
    """What a search over layers and scales chose; empty where there was none."""

    def title(self, name: str) -> str:
        """The name of a goal as people read it."""
        return self.goals[name].title if name in self.goals else words(name)

    @property
    def methods(self) -> list[str]:
        """Methods in the order of tables and figures."""
        return methods(self.best) or list(self.settings.methods)


class SteeringFolder:
    """The files of a study that tell of its steering.

    Args:
        folder: of the study.
        settings: how it steers.
    """

    def __init__(self, folder: StudyFolder, settings: Steering) -> None:
        self._folder, self.settings = folder, settings
        self.sae = str(getattr(folder.study, "target_sae"))  # noqa: B009 - of the kind's own class
        self.layer = int(str(getattr(folder.study, "hook")).split(".")[1])  # noqa: B009 - as above

    @property
    def methods(self) -> list[str]:
        """The study's methods but those that are given latents which no study of real text
        knows."""
        return [method for method in self.settings.methods if not method.endswith(PLANTED)]

    def targets(self, goal: str) -> dict[int, float]:
        """Target latents of a goal with their weights."""
        content = self._folder.json(f"steering/{goal}/latents.json")
        return {int(latent): float(weight) for latent, weight in content.get("latents", {}).items()}

    def target_rows(self, goals: Mapping[str, Goal]) -> list[TargetRow]:
        """What is known of the latents that goals target; of goals of the study."""
        table = self._folder.table("steering/targets")
        own = table.filter(pl.col("goal").is_in(self.settings.goals.names)) if len(table) else table
        topics = {name: goal.topic or name for name, goal in goals.items()}
        recovery = self._folder.table(f"saes/{self.sae}/recovery")
        return target_rows(own, recovery, topics)

    def side_effects(self, goal: str) -> pl.DataFrame:
        """Predicted and measured change of every latent, by method; only methods of the study,
        and nothing where it does not ask for effects."""
        if self._folder.section("effects") is None:
            return pl.DataFrame()
        table = self._folder.table(f"steering/{goal}/side_effects")
        return table.filter(pl.col("method").is_in(self.methods)) if len(table) else table

    def samples(self, goal: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The first completions of every method and scale of a goal, and their scores."""
        samples, scores = [], []
        for method in self.methods:
            completions = self._folder.table(f"steering/{goal}/{method}/completions")
            if completions.is_empty():
                continue
            samples.append(first_samples(completions))
            judged = self._folder.table(f"steering/{goal}/{method}/scores")
            if len(judged):
                own = judged.select("completion_id", "criterion", "score", "reason")
                scores.append(own.join(samples[-1], on="completion_id", how="semi"))
        return joined_tables(samples), joined_tables(scores)

    def goals(self) -> dict[str, Goal]:
        """What is known of the goals; nothing of those whose file is not there."""
        named = shipped_or_own(self.settings.goals.directory)
        folder = self._folder.beside.get("steering", named)
        paths = {name: folder / f"{name}.yaml" for name in self.settings.goals.names}
        return {name: read_goal(path) for name, path in paths.items() if path.is_file()}

    def cost(self) -> Cost | None:
        """What judging cost, where a model was asked."""
        if not self.settings.judge.traits.is_hosted:
            return None
        return self._folder.read("judging/ledger.sqlite", _cost, None)

    def results(self) -> SteeringResults:
        """All that is known but for completions and side effects, which are read goal by goal."""
        summary = self._folder.table("steering/summary")
        best = self._folder.table("steering/best")
        if best.is_empty() or summary.is_empty():  # nothing is scored yet
            summary, best = pl.DataFrame(schema=SUMMARY_SCHEMA), pl.DataFrame(schema=BEST_SCHEMA)
        comparisons = self._folder.table("steering/comparisons")
        described = self.goals()
        targets = self.target_rows(described)
        ratings = self._folder.table("steering/ratings") if self.settings.pairs else pl.DataFrame()
        return SteeringResults(
            settings=self.settings,
            sae=self.sae,
            layer=self.layer,
            summary=of_chosen_latents(summary),
            best=of_chosen_latents(best),
            comparisons=of_chosen_latents(comparisons),
            ratings=of_chosen_latents(ratings),
            targets=targets,
            planted=Planted.of(best, comparisons, targets),
            goals=described,
            cost=self.cost(),
            searched=of_chosen_latents(
                self._folder.table("steering/search_best")
                if self.settings.search
                else pl.DataFrame()
            ),
        )


def _cost(path: Path) -> Cost:
    ledger = Ledger(path)
    try:
        spent = ledger.spent()
        return Cost(spent.calls, spent.usd, ledger.usage())
    finally:
        ledger.close()
