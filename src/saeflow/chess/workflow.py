"""What the workflow's rules say of a study of chess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from saeflow.chess.study import ChessStudy
from saeflow.planning.work import Need
from saeflow.workflow import Workflow

CORE_RULES = (
    *("study", "../workflow/chess", "chess_player", "chess_saes"),
    *("manifests", "saes", "figures", "chess_report"),
)


class ChessWorkflow(Workflow[ChessStudy]):
    """The rules' view of a study of chess."""

    def __init__(
        self, study: ChessStudy, checkout: Path | None, fetch: Callable[[str], str]
    ) -> None:
        names = {"study": [study.study], "model": [study.model.name], "sae": list(study.saes)}
        super().__init__(study, names, checkout, fetch)

    def needs(self, root: Path) -> list[Need]:
        """What the study reads from outside."""
        from saeflow.chess.plan import needs

        return needs(self.study, root)

    @property
    def core_results(self) -> list[str]:
        """What every study is run for."""
        return [*super().core_results, "models/{model}.accuracy.parquet"]

    @property
    def rule_files(self) -> list[str]:
        """The files of rules, in the order in which they are read."""
        return [*CORE_RULES, *(f"chess_{analysis.key}" for analysis, _ in self.study.asked)]

    def report_sources(self) -> list[Any]:
        """Everything that the report shows; its command is told the study's folder and reads these
        files in it."""
        return (
            self.files(
                *self.core_results,
                *("games/positions.parquet", "saes/{sae}/cfg.json"),
                *self.analysed,
                *(f"figures/{{figure}}.{end}" for end in ("png", "svg", "csv")),
            )
            + self.drawn_tables()
        )
