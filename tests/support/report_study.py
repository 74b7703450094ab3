"""Writes the files of a study that never ran, for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import figure_tables as made
import h5py
import latent_tables
import numpy as np
import polars as pl
import yaml
from safetensors.numpy import save_file
from studies import study_config

from saeflow.analyses import ANALYSES, Study
from saeflow.analyses.reading import read_study
from saeflow.analyses.steering.choice import TARGETS_SCHEMA
from saeflow.config.sections import Figures
from saeflow.figures.figure import declared
from saeflow.figures.io import read_tables, write_figure
from saeflow.kinds import check_any_study
from saeflow.report import io as report_io
from saeflow.report.folder import StudyFolder

FIGURES = {figure.name: figure for figure in declared(Study, Study.analyses)}
HOSTILE = (
    'The </script><script>alert(1)</script> <img src="http://evil.example/x.png" onerror=alert(2)> </template> & '
    '"quoted" it’s {{ 7 }} \u2028 \u202e <!-- ]]>'
)
HOSTILE_TITLE = "<b onmouseover=alert(3)>London</b> </title>"
LATENTS = 128
METHODS = made.METHODS
ANALYSED = [analysis.key for analysis in ANALYSES]


def write_report(root: Path, output: Path, goals: Path | None = None) -> Path:
    """Write the report of a study's folder; its first page."""
    beside = {"steering": goals} if goals else {}
    return report_io.write_report(StudyFolder(root, read_study, beside), output)


def write_study(
    root: Path, goals: int = 2, figures: Sequence[str] = tuple(FIGURES), latents: int = LATENTS
) -> None:
    """Write every file that a report can show, and the goals' files beside the study's folder.

    Args:
        latents: of the SAE; without any nothing is known of them.
    """
    summary = made.beside_scores(made.with_words(made.summary(goals)))
    best = made.best(summary)
    names = list(made.GOALS[:goals])
    _yaml(root / "config.yaml", _config(names))
    _json(
        root / "provenance.json",
        {"python": "3.11", "machine": "Linux", "packages": {"torch": "2.13.0"}, "commit": "abc"},
    )
    _json(
        root / "models/tales-lm.metrics.json",
        {"loss": 1.904, "entropy": 1.84, "gap": 0.064, "parameters": 471_648},
    )
    _json(
        root / "saes/main/metrics.json",
        {"explained_variance": 0.948, "l0": 8.0, "dead": 3, "recovered": 0.991},
    )
    _json(
        root / "effects/main/metrics.json",
        {"r2": 0.731, "r2_shuffled": -0.02, "method": "ridge"},
    )
    tables = {
        "steering/summary": summary,
        "steering/best": best,
        "steering/comparisons": made.comparisons(best),
        "steering/matched": made.matched(goals),
        "steering/search": made.search(goals),
        "steering/search_best": made.search_best(goals),
        "steering/targets": _targets(names),
        "effects/main/predictions": made.predictions(20, 64),
        "saes/main/training": made.sae_training().drop("sae"),
        "saes/main/recovery": made.recovery().drop("sae"),
        "models/tales-lm/training": made.model_training(),
    }
    for name, table in tables.items():
        _parquet(root / f"{name}.parquet", table)
    side_effects = made.side_effects(goals)
    for goal in names:
        _json(root / f"steering/{goal}/latents.json", {"latents": {"5": 1.0}, "candidates": []})
        own = side_effects.filter(pl.col("goal") == goal).drop("goal")
        _parquet(root / f"steering/{goal}/side_effects.parquet", own)
        for method in (*made.METHODS, "few_shot"):
            _completions(root / f"steering/{goal}/{method}", goal, method)
    _effects(root)
    latent_tables.add_vectors(root / "effects/main/effects.h5", LATENTS)
    _goal_files(root.parent / "goals", names)
    if latents:
        latent_tables.write_latents(root, "main", latents, latent_tables.words(400))
    _json(
        root / "saes/main/cfg.json", {"d_in": 16, "metadata": {"neuronpedia_id": "tales-lm/1-res"}}
    )
    for name in figures:
        tables = read_tables(FIGURES[name], root, files(root))
        write_figure(FIGURES[name], tables, Figures(), root / "figures")


def ask_only_for(root: Path, *keys: str, **changed: Any) -> None:
    """Leave only some analyses in the config of a study's folder; all files stay.

    Args:
        changed: sections that say something else.
    """
    values = yaml.safe_load((root / "config.yaml").read_text())
    left = {name: value for name, value in values.items() if name not in ANALYSED or name in keys}
    _yaml(root / "config.yaml", left | changed)


def _targets(goals: list[str]) -> pl.DataFrame:
    rows = [
        {
            "goal": goal,
            "latent": 5,
            "weight": 1.0,
            "source": "chosen",
            "shared_with": "",
            "rank": 1,
            "score": 0.6,
        }
        | {
            "chosen": 0.9 - 0.3 * (place % 2),
            "held_out_neutral": 1.0,
            "held_out_others": 0.93,
            "runner_up": 7,
        }
        | {"margin": 0.12}
        for place, goal in enumerate(goals)
    ]
    return pl.DataFrame(rows, schema=TARGETS_SCHEMA)


def _goal_files(folder: Path, names: list[str]) -> None:
    for name in names:
        title = HOSTILE_TITLE if name == names[1] else name.replace("_", " ").capitalize()
        texts = {"positive": ["Yes <b>.", "Yes."], "negative": ["No.", "No no."]}
        _yaml(folder / f"{name}.yaml", {"title": title, "criterion": "The text shows it.", **texts})


def files(root: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def _config(goals: list[str]) -> dict[str, Any]:
    steering = {"steering.goals.names": goals, "steering.completions.scales": list(made.SCALES)}
    return check_any_study(study_config("reported", steering)).model_dump(mode="json")


def _completions(folder: Path, goal: str, method: str) -> None:
    rows, scores = [], []
    scales = (0.0, None) if method == "few_shot" else made.SCALES
    for index, scale in enumerate(scales):
        for sample in range(5):
            name = f"{goal}-{method}-{index}-{sample}"
            text = (
                HOSTILE
                if sample == 1
                else f"The guests of the {goal} came by {method} at {scale}, she said, and sat down."
            )
            keys = {
                "goal": goal,
                "method": method,
                "scale": None if scale is None else scale * made.UNIT,
                "scale_index": index,
                "prompt": "The",
            }
            rows.append({**keys, "sample": sample, "seed": 0, "completion_id": name, "text": text})
            for criterion, score in (
                ("behaviour", 0.5),
                ("coherence", None if sample == 2 else 0.9),
            ):
                scores.append(
                    {"completion_id": name, "criterion": criterion, "score": score, "reason": ""}
                )
    _parquet(folder / "completions.parquet", pl.DataFrame(rows))
    _parquet(folder / "scores.parquet", pl.DataFrame(scores))


def _effects(root: Path) -> None:
    table, names = made.effects(), ["ok", "above_at_zero", "never_reached", "clamped"]
    folder = root / "effects/main"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "effects.h5", "w") as file:
        file["scale"] = table["scale"].to_numpy()
        file["status"] = np.array(
            [names.index(status) for status in table["status"]], dtype=np.uint8
        )
        file["status"].attrs["names"] = names
    metadata = {"metadata": json.dumps({"rollouts": 384, "loss": 1.91})}
    save_file({"mean": np.zeros(4)}, folder / "baseline.safetensors", metadata=metadata)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _yaml(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value))


def _parquet(path: Path, table: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path)
