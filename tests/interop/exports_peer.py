"""What llama.cpp's own reader, lm-evaluation-harness and Inspect make of files of steering; runs in
their environment and knows nothing of saeflow.

    exports_peer.py FOLDER

The folder holds ``log.json``, ``vector.gguf``, and of every family a model ``<family>/`` and its
``<family>.pt``; ``tokens.safetensors`` is what the models read. ``read.json`` and
``read.safetensors`` are written into it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from inspect_ai.log import read_eval_log, read_eval_log_sample_summaries
from lm_eval.models.hf_steered import SteeredModel
from safetensors.torch import load_file, save_file


def main() -> None:
    folder = Path(sys.argv[1])
    tokens = load_file(folder / "tokens.safetensors")["tokens"]
    read = {}
    for path in sorted(folder.glob("*.pt")):
        model = SteeredModel(
            pretrained=str(path.with_suffix("")),
            steer_path=str(path),
            device="cpu",
            dtype="float32",
            batch_size=1,
        )
        with torch.no_grad():
            read[path.stem] = model._model_call(tokens).contiguous()
    for path in folder.glob("*.gguf"):
        read |= {tensor.name: torch.tensor(tensor.data) for tensor in GGUFReader(path).tensors}
    save_file(read, folder / "read.safetensors")

    log = read_eval_log(str(folder / "log.json"))
    head = read_eval_log(str(folder / "log.json"), header_only=True)
    summaries = read_eval_log_sample_summaries(str(folder / "log.json"))
    samples = [
        {
            "completion_id": sample.id,
            "prompt": sample.input,
            "continuation": sample.output.completion,
            "ended": sample.output.stop_reason == "stop",
            **{name: sample.metadata[name] for name in ("goal", "method", "scale", "sample")},
            **{name: score.as_float() for name, score in sample.scores.items()},
        }
        for sample in log.samples
    ]
    means = {
        score.name: {metric.params["scale"]: metric.value for metric in score.metrics.values()}
        for score in head.results.scores
    }
    heard = {
        "samples": samples,
        "means": means,
        "model": head.eval.model,
        "status": head.status,
        "summaries": len(summaries),
    }
    (folder / "read.json").write_text(json.dumps(heard))


if __name__ == "__main__":
    main()
