"""What asking an engine takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.chess.analyses.engine.engine import program_of
from saeflow.chess.analyses.engine.settings import Engine
from saeflow.planning.work import Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.chess.study import ChessStudy


def work(study: ChessStudy, own: Engine, scope: Scope) -> list[StagePlan]:
    """Searches of every position, and one job that gathers what they found."""
    limits = {"depth": own.depth, "nodes": own.nodes}
    ends = ", ".join(f"{name} {limit:,}" for name, limit in limits.items() if limit)
    what = f"{own.command}, {ends}: two searches per position at most"
    return [StagePlan("engine", own.jobs + 1, own.positions, 0, 0, what)]


def needs(study: ChessStudy, own: Engine) -> list[Need]:
    """The engine."""
    mend = "install it, or name another program or its path"
    return [Need("engine.command", own.command, program_of(own) is not None, mend=mend)]
