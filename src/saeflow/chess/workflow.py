"""What the workflow's rules say of a study of chess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from saeflow.chess.study import ChessStudy
from saeflow.workflow import Workflow


class ChessWorkflow(Workflow[ChessStudy]):
    """The rules' view of a study of chess."""

    def __init__(
        self, study: ChessStudy, checkout: Path | None, fetch: Callable[[str], str]
    ) -> None:
        names = {"study": [study.study], "model": [study.model.name], "sae": list(study.saes)}
        super().__init__(study, names, checkout, fetch)
        self.figures = {
            "chess_accuracy": ["models/{model}.accuracy.parquet"],
            "chess_board_auc": ["chess/{sae}/associations.parquet"],
            "chess_skill": ["chess/{sae}/skill.parquet"],
            "chess_awareness": ["chess/{sae}/awareness.parquet"],
            "chess_interventions": ["chess/{sae}/interventions.parquet"],
        }
        if trained := [name for name, sae in study.saes.items() if sae.train]:
            self.figures["sae_training"] = [f"saes/{name}/training.parquet" for name in trained]
        self.names = {**names, "figure": list(self.figures)}

    @property
    def rule_files(self) -> list[str]:
        """The files of rules, in the order in which they are read."""
        return [
            *("study", "../workflow/chess", "chess_player", "chess_saes", "chess_concepts"),
            *("chess_skill", "chess_interventions", "chess_transitions"),
            *(["chess_engine"] if self.study.engine else []),
            *("chess_report", "manifests", "saes", "figures"),
        ]

    @property
    def results(self) -> list[str]:
        """What the target ``all`` makes."""
        engine = ["chess/engine.parquet", "chess/blunders.parquet"] if self.study.engine else []
        return [
            *("config.yaml", "provenance.json", "models/{model}.accuracy.parquet"),
            *("saes/{sae}/metrics.json", "chess/{sae}/interventions.parquet"),
            *("chess/transitions.parquet", "figures/{figure}.png", "report/index.html"),
            *engine,
            *(["chess/fine_tuning.parquet"] if self.study.fine_tune else []),
        ]

    @property
    def targets(self) -> dict[str, list[str]]:
        """What may be asked for by name, and what each makes."""
        caches = [
            f"activations/{model}/{hook}/manifest.json"
            for model, hooks in self.study.caches.items()
            for hook in hooks
        ]
        return {
            "activations": caches,
            "saes": ["saes/{sae}/metrics.json"],
            "plots": ["figures/{figure}.png"],
        }

    def report_sources(self) -> list[Any]:
        """Everything that the report shows; its command is told the study's folder and reads these
        files in it."""
        tables = ["concepts", "associations", "probes", "boards", "skill", "interventions"]
        engine = ["chess/engine.parquet", "chess/blunders.parquet"] if self.study.engine else []
        return self.files(
            *engine,
            *(["chess/fine_tuning.parquet"] if self.study.fine_tune else []),
            *("config.yaml", "provenance.json", "chess/positions.parquet"),
            *("chess/transitions.parquet", "models/{model}.accuracy.parquet"),
            *("saes/{sae}/cfg.json", "saes/{sae}/metrics.json"),
            *(f"chess/{{sae}}/{table}.parquet" for table in tables),
            *(f"figures/{{figure}}.{end}" for end in ("png", "svg", "csv")),
            *sorted({table for tables in self.figures.values() for table in tables}),
        )
