"""Holds exported vectors and completions to the programs that they are for; exit status 1 if one
differs.

    compare_exports.py FOLDER_OF_THE_VIRTUAL_ENVIRONMENT

``exports_peer.py`` runs in that environment, made from ``requirements-exports.txt``; this runs in
the project's own. Models are random and tiny, of every family.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from steered import HOOK, unit_rows
from tiny_models import FAMILY_NAMES, save_tiny_model, tiny_tokens

from saeflow.analyses.steering.completions import complete
from saeflow.analyses.steering.exports.content import export
from saeflow.analyses.steering.io import SteeringVector, save_vector
from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
from saeflow.analyses.steering.settings import Completions
from saeflow.config import Goal, Judge
from saeflow.judging.io import write_scores
from saeflow.judging.losses import model_losses
from saeflow.judging.scores import score_completions
from saeflow.models.hooks import attach
from saeflow.models.language_model import load_model
from saeflow.tables import write_table

HERE = Path(__file__).parent
TOLERANCE = 1e-4
SCALE = 4.0
GOAL = Goal(
    title="cats",
    criterion="is about cats",
    words=["cat"],
    positive=["the cat", "a cat"],
    negative=["the tree", "a mat"],
)


def steered_logits(folder: Path, tokens: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """What the model says of tokens when it is steered here."""
    lm = load_model(folder)
    with torch.no_grad(), attach(lm, [(HOOK, lambda resid: resid + SCALE * vector)]):
        return lm.model(tokens).logits


def write_log(root: Path, vector: torch.Tensor) -> pl.DataFrame:
    """Export real completions with real scores, and give what the log should say."""
    lm = load_model(root / "llama")
    settings = Completions(prompts=["the cat", "I think"], samples=5, new_tokens=8)
    done = complete(lm, HOOK, vector, [0.0, SCALE], settings, 1, "cats", "caa")
    scores = score_completions(done, GOAL, Judge(kind="lexical"), 0, model_losses(lm))
    write_table(root / "completions.parquet", done, COMPLETIONS_SCHEMA)
    write_scores(root / "scores.parquet", scores)
    files = {name: root / f"{name}.parquet" for name in ("completions", "scores")}
    export(root / "log.json", "inspect", files | {"model": root / "llama"}, None)
    by_criterion = scores.pivot("criterion", index="completion_id", values="score")
    return done.join(by_criterion, on="completion_id", maintain_order="left")


def main() -> None:
    python, vector, tokens = Path(sys.argv[1]) / "bin" / "python", unit_rows(1)[0], tiny_tokens()
    worst, wrong = 0.0, []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        file = root / "vector.safetensors"
        save_vector(file, SteeringVector(vector, {"hook": HOOK, "goal": "cats", "method": "caa"}))
        for family in FAMILY_NAMES:
            folder = save_tiny_model(root / family, family)
            export(root / f"{family}.pt", "lm_eval", {"vector": file, "model": folder}, SCALE)
        files = {"vector": file, "model": root / "llama"}
        export(root / "vector.gguf", "control_vector", files, SCALE)
        expected = write_log(root, vector)
        save_file({"tokens": tokens}, root / "tokens.safetensors")
        done = subprocess.run(
            [python, HERE / "exports_peer.py", root], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"exports_peer.py failed:\n{done.stderr[-3000:]}")

        read, heard = (
            load_file(root / "read.safetensors"),
            json.loads((root / "read.json").read_text()),
        )
        for family in FAMILY_NAMES:
            ours = steered_logits(root / family, tokens, vector)
            difference = float((read[family] - ours).abs().max())
            worst = max(worst, difference)
            if not difference < TOLERANCE:
                wrong.append(f"lm_eval, {family}: logits differ by {difference:.2g}")
        if not torch.equal(read["direction.1"], vector * SCALE):
            wrong.append("gguf: direction.1 is another vector")
        for theirs, row in zip(heard["samples"], expected.iter_rows(named=True), strict=True):
            if differing := {key for key, value in theirs.items() if row[key] != value}:
                wrong.append(
                    f"inspect, {row['completion_id']}: {', '.join(sorted(differing))} differ"
                )
        if (heard["status"], heard["model"]) != ("success", "llama"):
            wrong.append(f"inspect: the log is of {heard['model']}, {heard['status']}")
        means = expected.group_by("scale").agg(pl.col("behaviour", "coherence").mean())
        for row in means.iter_rows(named=True):
            for criterion in ("behaviour", "coherence"):
                if abs(heard["means"][criterion][str(row["scale"])] - row[criterion]) > 1e-9:
                    wrong.append(f"inspect: another mean of {criterion} at scale {row['scale']}")
    print("\n".join(wrong))
    print(
        f"{len(FAMILY_NAMES)} families steered by lm_eval, logits differ by {worst:.2g} at most; "
        f"{len(heard['samples'])} samples read by Inspect; "
        "a control vector read by gguf; "
        f"{len(wrong)} differences"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
