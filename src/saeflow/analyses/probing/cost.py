"""What probing takes, and what it reads from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.analyses.probing import hooks, saes
from saeflow.analyses.probing.catalogue import chosen_sets, parts
from saeflow.analyses.probing.settings import Probing
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study


def work(study: Study, own: Probing, scope: Scope) -> list[StagePlan]:
    """The texts of all sets through the model up to the highest hook, and through every SAE; and
    the fits: a Newton step of a regression on all of an activation takes its width squared times
    the rows."""
    names, places = saes(study, own), hooks(study, own)
    rows = len(own.sets) * own.reading.rows
    tokens = rows * own.reading.context
    flop = tokens * scope.flop(logits=False)
    flop += sum(study.saes[name].declared_width or 0 for name in names) * 2 * scope.width * rows
    train, regimes = own.fitting.train_rows, own.regimes
    levels = 2 + len(regimes.imbalance) + len(regimes.noise) + len(regimes.scarcity) // 3
    steps = 5 * len(own.fitting.strengths) * (own.fitting.folds + 1) * own.fitting.seeds
    flop += len(own.sets) * len(places) * levels * steps * train * scope.width**2
    jobs = len(own.sets) + 2
    disk = rows * 4 * (scope.width * len(places) + 200 * len(names))
    counts = {"set": len(own.sets), "SAE": len(names), "seed": own.fitting.seeds}
    what = ", ".join(counted(count, noun) for noun, count in counts.items())
    return [StagePlan("probing", jobs, tokens, flop, disk, what)]


def needs(study: Study, own: Probing) -> list[Need]:
    """The catalogue, and the local files that it names."""
    catalogue = shipped_or_own(own.catalogue)
    outside = [Need("probing.catalogue", str(catalogue), catalogue.is_file())]
    if not outside[0].present:
        return outside
    for name, source in parts(chosen_sets(Path(catalogue), own)):
        if source.path:
            file = shipped_or_own(source.path)
            outside.append(Need(f"probing.sets ({name})", str(file), file.is_file()))
    return outside
