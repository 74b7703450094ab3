"""Logs of Inspect (UK AISI's ``inspect_ai``) in JSON, version 2 of its format: a completion is a
sample, a criterion a score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses.steering.exports.content import Content
from saeflow.artifacts import atomic
from saeflow.errors import SaeflowError

READS = ("completions", "scores", "model")
SUFFIXES = (".json",)


def save(path: Path, content: Content) -> None:
    """Write completions with their scores.

    Raises:
        SaeflowError: scores are of other completions or not numbers, or what `Content` raises.
    """
    log = log_of(content.completions, content.scores, content.model_name, datetime.now(UTC))
    with atomic(path) as temporary:  # not sorted: readers of the head want samples last
        temporary.write_text(json.dumps(log, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def log_of(
    completions: pl.DataFrame, scores: pl.DataFrame, model: str, written: datetime
) -> dict[str, Any]:
    """The log as a value of JSON.

    A score that is missing is absent from its sample, whose metadata say why. The results hold the
    mean of every criterion at each scale, of the samples that have a score.

    Args:
        completions: columns of `COMPLETIONS_SCHEMA`.
        scores: columns of `SCORES_SCHEMA`, of the same completions.
        model: its name.
        written: when the log is written.

    Raises:
        SaeflowError: scores are of other completions, of one twice, or not numbers.
    """
    _check(completions, scores)
    by_completion: dict[str, list[dict[str, Any]]] = {}
    for score in scores.iter_rows(named=True):
        by_completion.setdefault(score["completion_id"], []).append(score)
    samples = [
        _sample(row, by_completion[row["completion_id"]], model)
        for row in completions.iter_rows(named=True)
    ]
    ids = [sample["id"] for sample in samples]
    # a name that the same completions always have
    identity = hashlib.blake2b("\x1f".join(ids).encode(), digest_size=11).hexdigest()
    moment = written.isoformat(timespec="seconds")
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "created": moment,
            "task": "steering",
            "task_id": identity,
            "dataset": {"name": "steering", "samples": len(ids), "sample_ids": ids},
            "model": model,
            "config": {},
            "metadata": {
                name: sorted(completions[name].drop_nulls().unique().to_list())
                for name in ("goal", "method", "scale", "seed")
            },
        },
        "plan": {"name": "plan", "steps": []},
        "results": {
            "total_samples": len(ids),
            "completed_samples": len(ids),
            "scores": _results(completions, scores),
        },
        "stats": {"started_at": moment, "completed_at": moment},
        "samples": samples,
    }


def _check(completions: pl.DataFrame, scores: pl.DataFrame) -> None:
    if set(completions["completion_id"]) != set(scores["completion_id"]):
        raise SaeflowError(
            "steering: the scores are of other completions than those that were named; name the "
            "scores.parquet that lies beside them"
        )
    if completions["completion_id"].is_duplicated().any() or (
        scores.select("completion_id", "criterion").is_duplicated().any()
    ):
        raise SaeflowError(
            "steering: a completion stands twice, or is scored twice by one criterion; make the "
            "tables again"
        )
    numbers = pl.concat([scores["score"].drop_nulls(), completions["scale"]])
    if not numbers.is_finite().all() or completions["continuation"].null_count():
        raise SaeflowError(
            "steering: a score or a scale is NaN or infinite, or a continuation is missing; make "
            "the tables again"
        )


def _sample(row: Mapping[str, Any], scores: list[dict[str, Any]], model: str) -> dict[str, Any]:
    answer = {"role": "assistant", "content": row["continuation"], "source": "generate"}
    return {
        "id": row["completion_id"],
        "epoch": 1,
        "input": row["prompt"],
        "target": row["goal"],
        "messages": [{"role": "user", "content": row["prompt"], "source": "input"}, answer],
        "output": {
            "model": model,
            "choices": [
                {"message": answer, "stop_reason": "stop" if row["ended"] else "max_tokens"}
            ],
            "completion": row["continuation"],
        },
        "scores": {
            score["criterion"]: {
                "value": score["score"],
                "answer": row["continuation"],
                "explanation": score["reason"],
                "metadata": {"judge": score["judge"], "attempt": score["attempt"]},
            }
            for score in scores
            if score["score"] is not None
        },
        "metadata": {
            **{name: row[name] for name in ("goal", "method", "scale", "sample", "seed")},
            "missing_scores": {
                score["criterion"]: score["reason"] for score in scores if score["score"] is None
            },
        },
    }


def _results(completions: pl.DataFrame, scores: pl.DataFrame) -> list[dict[str, Any]]:
    of_scales = scores.join(completions.select("completion_id", "scale"), on="completion_id")
    results = []
    for criterion in scores["criterion"].unique(maintain_order=True):
        own = of_scales.filter(criterion=criterion)
        means = own.drop_nulls("score").group_by("scale").agg(pl.col("score").mean()).sort("scale")
        metrics = {
            "mean in words" if scale is None else f"mean at scale {scale}": {
                "value": mean,
                "params": {"scale": scale},
            }
            for scale, mean in means.iter_rows()
        }
        results.append(
            {
                "name": criterion,
                "scorer": criterion,
                "scored_samples": own["score"].count(),
                "unscored_samples": own["score"].null_count(),
                "metrics": {name: {"name": name, **metric} for name, metric in metrics.items()},
            }
        )
    return results
