"""Wrong configs and goals are refused with one line that names the key and the reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from studies import MISSING, changed, study_config

from saeflow.analyses import Study
from saeflow.analyses.reading import read_study
from saeflow.chess.saes.settings import SITE
from saeflow.chess.study import ChessStudy
from saeflow.config import Goal, SAETraining, read_goal, read_pairs
from saeflow.config.reading import complaints
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study

STUDY, TEXT = study_config("minimal"), study_config("minimal-text")
MESSAGES = [{"role": "user", "content": "Hi"}]

GOAL: dict[str, Any] = {
    "title": "Anger",
    "criterion": "The text is angry.",
    "positive": ["She shouted.", "He was furious."],
    "negative": ["She smiled.", "He was calm."],
}


def answers(table: list[tuple[dict[str, Any], str, str]]) -> list[str]:
    """Names for the rows of a table."""
    return [f"{key}: {reason}" for _, key, reason in table]


def complaint(values: dict[str, Any]) -> str:
    with pytest.raises(SaeflowError) as caught:
        check_any_study(values)
    assert caught.value.__context__ is None, "a traceback of pydantic's would be shown"
    return str(caught.value)


# One mutation of STUDY, the key of the complaint, a part of its reason.
WRONG_STUDIES: list[tuple[dict[str, Any], str, str]] = [
    # Unknown keys, at each level
    ({"sed": 1}, "sed", "did you mean 'seed'?"),
    ({"gpu": True}, "gpu", "is not a known key; known here: kind, study, seed, corpus"),
    ({"corpus.knd": "tales"}, "corpus.knd", "did you mean 'kind'?"),
    ({"corpus.tokens.train": 5000}, "corpus.tokens.train", "known here: model, sae, eval"),
    ({"model.dtyp": "float32"}, "model.dtyp", "did you mean 'dtype'?"),
    ({"model.train.n_layer": 2}, "model.train.n_layer", "did you mean 'n_layers'?"),
    ({"saes.main.trian": None}, "saes.main.trian", "did you mean 'train'?"),
    ({"saes.main.train.dsae": 64}, "saes.main.train.dsae", "did you mean 'd_sae'?"),
    (
        {"effects.measurement.sampling.topk": 5},
        "effects.measurement.sampling.topk",
        "did you mean 'top_k'?",
    ),
    (
        {"effects.measurement.scale.max": 5.0},
        "effects.measurement.scale.max",
        "did you mean 'maximum'?",
    ),
    ({"steering.judge.engine": "gpt"}, "steering.judge.engine", "known here: kind, saturation"),
    ({"steering.completions.scale": [0.0]}, "steering.completions.scale", "did you mean 'scales'?"),
    ({"activations.threads": 2}, "activations.threads", "is not a known key"),
    # What an analysis needs that is not asked for: one sentence, however many methods need it
    (
        {"effects": None},
        "steering.vectors.methods",
        "sae_ts, pinverse, rotation are built from effects of vectors, which are not asked for; "
        "set effects: {}",
    ),
    (
        {"effects": None, "steering.vectors.methods": ["caa", "sae_ts"]},
        "steering.vectors.methods",
        "sae_ts is built from effects of vectors",
    ),
    (
        {"effects.sae": "other", "steering.sae": "main"},
        "effects.sae",
        "'other' is not steering.sae 'main'; name one in both",
    ),
    # Keys of another section, as in configs of before the sections were divided
    ({"goals": {}}, "goals", "did you mean 'steering.goals'?"),
    ({"judge": {}}, "judge", "did you mean 'steering.judge' or"),
    ({"approximator": {}}, "approximator", "did you mean 'effects.approximator'?"),
    (
        {"steering.scales": [0.0]},
        "steering.scales",
        "did you mean 'steering.completions.scales' or 'steering.search.scales'?",
    ),
    (
        {"steering.new_tokens": 8},
        "steering.new_tokens",
        "did you mean 'steering.completions.new_tokens'?",
    ),
    (
        {"steering.shared_latents": True},
        "steering.shared_latents",
        "did you mean 'steering.targets.latents' or 'steering.targets.shared'?",
    ),
    ({"effects.scale": {}}, "effects.scale", "did you mean 'effects.measurement.scale'?"),
    ({"effects.block_size": 8}, "effects.block_size", "did you mean 'effects.vectors.block_size'?"),
    ({"steering.judge.pairs": 3}, "steering.judge.pairs", "did you mean 'steering.pairs'?"),
    ({"steering.judge.base_url": "x"}, "steering.judge.base_url", "'calls.base_url'?"),
    ({"activations.hooks": []}, "activations.hooks", "did you mean 'hooks' at the top?"),
    (
        {"saes.main.published": {"repo": "owner/name", "sae": "main"}},
        "saes.main.published.sae",
        "is not a known key; known here: repo",
    ),
    ({"d_sae": 64}, "d_sae", "did you mean 'saes.NAME.d_sae' or 'saes.NAME.train.d_sae'?"),
    ({"saes.main.dead_after": 4}, "saes.main.dead_after", "'saes.main.train.dead_after'?"),
    ({"saes.main.k": 4}, "saes.main.k", "this one is trained here; give train.k"),
    ({"saes.main.scale": 4.0}, "saes.main.scale", "this one is trained here; remove it"),
    # Missing keys
    ({"study": MISSING}, "study", "is missing"),
    ({"model": MISSING}, "model", "is missing"),
    ({"model.name": MISSING}, "model.name", "is missing"),
    ({"hook": MISSING}, "hook", "is missing"),
    ({"saes": MISSING}, "saes", "is missing"),
    ({"steering.goals": MISSING}, "steering.goals", "is missing"),
    ({"steering.goals.names": MISSING}, "steering.goals.names", "is missing"),
    # Wrong types
    ({"seed": "0"}, "seed", "must be a valid integer; got '0' (write 0)"),
    ({"seed": None}, "seed", "must be a valid integer; got nothing"),
    ({"seed": True}, "seed", "must be a valid integer; got true"),
    ({"seed": 1.5}, "seed", "must be a valid integer; got 1.5"),
    ({"corpus.tokens.sae": 6e5}, "corpus.tokens.sae", "got 600000.0 (write 600000)"),
    ({"corpus.tokens.sae": "6e5"}, "corpus.tokens.sae", "got '6e5' (write 600000)"),
    (
        {"model.train.learning_rate": "3e-4"},
        "model.train.learning_rate",
        "YAML reads 3e-4 as text: write 0.0003",
    ),
    ({"saes.main.train.learning_rate": "1e-5"}, "saes.main.train.learning_rate", "write 1.0e-05"),
    (
        {"saes.main.train.sparsity_coefficient": "much"},
        "saes.main.train.sparsity_coefficient",
        "got 'much'",
    ),
    ({"study": 2024}, "study", 'must be a valid string; got 2024 (put it in quotes: "...")'),
    (
        {"effects.measurement.prompts": ["I", False]},
        "effects.measurement.prompts.1",
        'got false (put it in quotes: "...")',
    ),
    ({"activations.compress": "yes"}, "activations.compress", "must be a valid boolean; got 'yes'"),
    ({"corpus": None}, "corpus", "must hold keys and values; got nothing"),
    ({"steering": ["caa"]}, "steering", "must hold keys and values; got ['caa']"),
    ({"saes.main": "topk"}, "saes.main", "must hold keys and values; got 'topk'"),
    ({"saes": [{"train": {}}]}, "saes", "must hold keys and values"),
    (
        {"steering.goals.names": "anger"},
        "steering.goals.names",
        "must be a list; got 'anger' (write [anger])",
    ),
    (
        {"steering.completions.scales": 2.0},
        "steering.completions.scales",
        "must be a list; got 2.0",
    ),
    ({3: "three"}, "3", 'a key must be text; got 3 (put it in quotes: "...")'),
    # Numbers that are none
    (
        {"effects.measurement.scale.value": math.nan},
        "effects.measurement.scale.value",
        "must be a finite number; got nan",
    ),
    (
        {"effects.measurement.scale.maximum": math.inf},
        "effects.measurement.scale.maximum",
        "must be a finite number; got inf",
    ),
    (
        {"steering.completions.scales": [0.0, math.inf]},
        "steering.completions.scales.1",
        "must be a finite number",
    ),
    # Out of range
    ({"seed": -1}, "seed", "must be greater than or equal to 0; got -1"),
    ({"seed": 2**31}, "seed", "must be less than 2147483648"),
    ({"corpus.context": 4}, "corpus.context", "must be greater than or equal to 8"),
    ({"corpus.tokens.eval": 0}, "corpus.tokens.eval", "must be greater than or equal to 1024"),
    ({"model.train.learning_rate": 1.0}, "model.train.learning_rate", "must be less than 1"),
    ({"saes.main.train.k": 0}, "saes.main.train.k", "must be greater than or equal to 1"),
    (
        {"saes.main.train.warmup_fraction": 1.5},
        "saes.main.train.warmup_fraction",
        "less than or equal to 1",
    ),
    (
        {"effects.measurement.sampling.top_p": 0.0},
        "effects.measurement.sampling.top_p",
        "must be greater than 0",
    ),
    (
        {"steering.completions.sampling.temperature": -0.1},
        "steering.completions.sampling.temperature",
        "greater than or equal to 0",
    ),
    (
        {"effects.approximator.penalties": [0.1, -1.0]},
        "effects.approximator.penalties.1",
        "must be greater than 0; got -1.0",
    ),
    (
        {"effects.approximator.penalties": []},
        "effects.approximator.penalties",
        "must hold at least 1 item; it holds 0",
    ),
    ({"steering.summary.level": 1.0}, "steering.summary.level", "must be less than 1"),
    (
        {"steering.completions.samples": 2},
        "steering.completions.samples",
        "must be greater than or equal to 4",
    ),
    ({"saes": {}}, "saes", "must hold at least 1 item; it holds 0"),
    ({"steering.goals.names": []}, "steering.goals.names", "must hold at least 1 item; it holds 0"),
    ({"figures.width": 0.5}, "figures.width", "must be greater than or equal to 3"),
    # Words that are not among the known ones
    ({"corpus.kind": "tale"}, "corpus.kind", "must be 'tales' or 'text'; got 'tale'"),
    ({"model.dtype": "fp16"}, "model.dtype", "must be 'float32', 'bfloat16' or 'float16'"),
    (
        {"hooks": ["blocks.9.hook_mlp_out"]},
        "hooks.0",
        "layer 9 does not exist",
    ),
    ({"hooks": ["mlp"]}, "hooks.0", "must be a TransformerLens name"),
    ({"activations.format": "h5"}, "activations.format", "must be 'parquet' or 'hdf5'"),
    (
        {"saes.main.train.architecture": "relu"},
        "saes.main.train.architecture",
        "'standard', 'gated', 'jumprelu'",
    ),
    (
        {"effects.measurement.scale.rule": "norm"},
        "effects.measurement.scale.rule",
        "must be 'loss_increase', 'loss' or 'fixed'",
    ),
    (
        {"steering.vectors.methods": ["caa", "saets"]},
        "steering.vectors.methods.1",
        "'pinverse_planted' or 'rotation_planted'",
    ),
    (
        {"steering.judge.kind": "oracle"},
        "steering.judge.kind",
        "must be 'planted', 'lexical' or 'openai'",
    ),
    ({"steering.judge.kind": "openai"}, "steering.judge.model", "is needed by 'openai'"),
    ({"steering.pairs": 4}, "steering.judge.kind", "answers no such questions"),
    (
        {"steering.judge": {"kind": "openai", "model": "m", "protocols": []}},
        "steering.judge.protocols",
        "must be one of them",
    ),
    # Names
    ({"study": "my/study"}, "study", "must open with a letter or digit and hold only"),
    ({"study": ""}, "study", "must open with a letter or digit"),
    ({"study": "x" * 65}, "study", "must have at most 64 characters"),
    ({"model.name": "../lm"}, "model.name", "must open with a letter or digit"),
    ({"saes": {"a/b": {"train": {}}}}, "saes.a/b", "must open with a letter or digit"),
    (
        {"steering.goals.names": ["anger", "so sad"]},
        "steering.goals.names.1",
        "must open with a letter or digit",
    ),
    (
        {"steering.goals.names": ["love", "anger", "love"]},
        "steering.goals.names",
        "'love' appears twice",
    ),
    (
        {"steering.vectors.methods": ["caa", "caa"]},
        "steering.vectors.methods",
        "'caa' appears twice",
    ),
    ({"figures.detail_goals": ["love", "love"]}, "figures.detail_goals", "'love' appears twice"),
    ({"steering.goals.directory": " "}, "steering.goals.directory", "must not be blank"),
    ({"corpus.separator": ""}, "corpus.separator", "must have at least 1 character"),
    # Hooks
    (
        {"hook": "layer 1"},
        "hook",
        "must be a TransformerLens name such as blocks.2.hook_resid_post, of hook_resid_pre",
    ),
    ({"hook": "blocks.1.hook_resid"}, "hook", "must be a TransformerLens name"),
    ({"hook": "blocks.01.hook_resid_post"}, "hook", "must be a TransformerLens name"),
    ({"hook": "blocks.-1.hook_resid_post"}, "hook", "must be a TransformerLens name"),
    (
        {"hook": "blocks.2.hook_resid_post"},
        "hook",
        "layer 2 does not exist; the model of model.train has 0 to 1",
    ),
    ({"hook": "blocks.1.hook_mlp_out"}, "hook", "'blocks.1.hook_mlp_out' cannot be steered"),
    # Keys that contradict each other
    ({"corpus.path": "stories.txt"}, "corpus.path", "kind 'tales' reads no file"),
    (
        {"corpus.context": 2048, "corpus.tokens.eval": 1024},
        "corpus.tokens.eval",
        "less than one block of context 2048",
    ),
    (
        {"corpus.tokens": {}},
        "corpus.tokens.model",
        "is needed (at least one block of corpus.context)",
    ),
    (
        {"corpus.tokens.model": 640},
        "model.train.batch_size",
        "32 blocks per step, but corpus.tokens.model gives only 10",
    ),
    (
        {"corpus.tokens.eval": 1024},
        "effects.measurement.scale.tokens",
        "2048 is more than corpus.tokens.eval 1024",
    ),
    (
        {"effects.measurement.scale.tokens": 64, "corpus.context": 128},
        "effects.measurement.scale.tokens",
        "64 is less than one block",
    ),
    (
        {"model.train.n_heads": 5},
        "model.train.n_heads",
        "5 heads do not give d_model 96 an even head width",
    ),
    (
        {"model.train.n_heads": 32},
        "model.train.n_heads",
        "32 heads do not give d_model 96 an even head width",
    ),
    (
        {"model.train": None},
        "model",
        "give one of train, path, tune, published and package; this gives none",
    ),
    ({"model.path": "checkpoint"}, "model", "this gives train and path"),
    ({"model.revision": "v1"}, "model.revision", "is not a known key"),
    (
        {"model": {"name": "lm", "path": "checkpoint"}},
        "corpus.kind",
        "'tales' has words of its own",
    ),
    (
        {"model.published": {"repo": "gpt2"}},
        "model.published.repo",
        "must name a hub repository as owner/name",
    ),
    (
        {"model.published": {"repo": "a/b", "sha256": "12"}},
        "model.published.sha256",
        "must be a SHA-256 as 64 digits",
    ),
    (
        {"model.published": {"repo": "a/b", "file": "../c"}},
        "model.published.file",
        "'../c' must lie in the repository",
    ),
    (
        {"model.package": {"name": "a/b", "version": "1", "file": "m.gguf"}},
        "model.package.name",
        "must name a package as an index of Python packages does",
    ),
    (
        {"model.package": {"name": "a", "version": ">=1", "file": "m.gguf"}},
        "model.package.version",
        "must be one version, such as 0.1.2",
    ),
    (
        {"model.package": {"name": "a", "version": "1", "file": "m.bin"}},
        "model.package.file",
        "must name a file that ends in .gguf",
    ),
    (
        {
            "model.package": {"name": "a", "version": "1", "file": "m.gguf"},
            "model.published": {"repo": "a/b"},
        },
        "model.package",
        "stands beside published; give one of them",
    ),
    ({"model.source": "fetch"}, "model.source", "'fetch' needs published; name the repository"),
    ({"effects.source": "fetch"}, "effects.source", "'fetch' needs published; name the repository"),
    (
        {"effects.published": {"repo": "a/b", "file": "e.csv"}},
        "effects.published.file",
        "ends in .h5 or .pt",
    ),
    (
        {"effects.approximator.published": {"repo": "a/b"}},
        "effects.approximator.published.file",
        "ends in .safetensors or .pt",
    ),
    (
        {"steering.vectors.published": {"repo": "a/b", "file": "{goal}.safetensors"}},
        "steering.vectors.published.file",
        "must hold {method}",
    ),
    (
        {"saes.main": {"published": {"repo": "a/b"}, "source": "compute"}},
        "saes.main.source",
        "needs train or path",
    ),
    (
        {"saes.main.d_sae": 64},
        "saes.main.d_sae",
        "belongs to published, and this SAE has train; remove it",
    ),
    (
        {"saes.main.published": {"repo": "a/b"}, "saes.main.d_sae": 9},
        "saes.main.d_sae",
        "9 is not train.d_sae 64",
    ),
    ({"model": {"name": "lm", "path": ""}}, "model.path", "must not be blank"),
    ({"saes.main.train.k": 64}, "saes.main.train.k", "64 must be smaller than d_sae 64"),
    (
        {"saes.main.train.warmup_fraction": 0.8},
        "saes.main.train.decay_fraction",
        "adds up with warmup_fraction",
    ),
    (
        {"saes.main.train.tokens": 100},
        "saes.main.train.tokens",
        "100 is less than one batch_size 2048",
    ),
    ({"saes.main": {}}, "saes.main", "give one of train, path and published; this gives none"),
    (
        {"saes.main.path": "folder"},
        "saes.main",
        "give one of train, path and published; this gives both",
    ),
    (
        {"effects.measurement.new_tokens": 64},
        "effects.measurement.new_tokens",
        "do not fit corpus.context 64",
    ),
    (
        {"steering.completions.new_tokens": 100},
        "steering.completions.new_tokens",
        "do not fit corpus.context 64",
    ),
    (
        {"effects.vectors.range": [3, 12]},
        "effects.approximator.validation",
        "0.1 of 9 vectors leaves no row",
    ),
    ({"effects.vectors.range": [8, 8]}, "effects.vectors.range", "[8, 8] holds no vector"),
    (
        {"effects.vectors.range": [8]},
        "effects.vectors.range",
        "must hold at least 2 items; it holds 1",
    ),
    (
        {"effects.vectors.sae": "wide"},
        "effects.vectors.sae",
        "there is no SAE 'wide'; saes names main",
    ),
    (
        {"effects.vectors": {"kind": "random", "sae": "main"}},
        "effects.vectors.sae",
        "'random' takes no rows of an SAE",
    ),
    ({"effects.vectors.kind": "file"}, "effects.vectors.path", "kind 'file' needs one"),
    (
        {"effects.vectors.path": "v.safetensors"},
        "effects.vectors.path",
        "kind 'decoder' reads no file",
    ),
    (
        {"steering.vectors.fgaa.positive": 0},
        "steering.vectors.fgaa.positive",
        "keep no latent; raise one of them",
    ),
    ({"steering.sae": "other"}, "steering.sae", "there is no SAE 'other'; saes names main"),
    (
        {"steering.targets.latents": 65},
        "steering.targets.latents",
        "65 is more than d_sae 64 of SAE 'main'",
    ),
    (
        {"steering.completions.prompts": [MESSAGES]},
        "steering.completions.prompts.0",
        "'tales' has no chat template; write text",
    ),
    (
        {"effects.measurement.prompts": ["I", MESSAGES]},
        "effects.measurement.prompts.1",
        "'tales' has no chat template; write text",
    ),
    (
        {"steering.completions.prompts": [5]},
        "steering.completions.prompts.0",
        "must be a valid string; got 5",
    ),
    (
        {"steering.completions.prompts": MESSAGES},
        "steering.completions.prompts.0",
        "must be a list; got {'role'",
    ),
    (
        {"steering.completions.prompts": [[{**MESSAGES[0], "role": "me"}]]},
        "steering.completions.prompts.0.0.role",
        "got 'me'",
    ),
    (
        {"steering.completions.prompts": [[{**MESSAGES[0], "text": "Hi"}]]},
        "steering.completions.prompts.0.0.text",
        "is not a known key; known here: role",
    ),
    (
        {"steering.completions.scales": [0.5, 1.0]},
        "steering.completions.scales",
        "must increase and hold 0.0 (the unsteered control)",
    ),
    (
        {"steering.completions.scales": [0.0, 2.0, 1.0]},
        "steering.completions.scales",
        "must increase and hold 0.0",
    ),
    (
        {"steering.completions.scales": [0.0]},
        "steering.completions.scales",
        "must hold at least 2 items; it holds 1",
    ),
    (
        {"steering.summary.selection": 0.001},
        "steering.summary.selection",
        "0.001 of 64 completions leaves none",
    ),
    (
        {"figures.detail_goals": ["wedding"]},
        "figures.detail_goals",
        "wedding is not in steering.goals.names",
    ),
]
WRONG_TEXT_STUDIES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"saes.main": {"published": {"repo": "owner/name"}}},
        "saes.main.d_sae",
        "is needed, since latents are counted before the SAE is fetched; give their number",
    ),
    ({"corpus.path": MISSING}, "corpus.path", "is needed for kind 'text'"),
    (
        {"corpus.path": "stories.xlsx"},
        "corpus.path",
        "'stories.xlsx' must end in .txt, .jsonl, .ndjson, ",
    ),
    (
        {"corpus.path": "${SAEFLOW_UNSET}/stories"},
        "corpus.path",
        "the environment has no SAEFLOW_UNSET; set it (export",
    ),
    ({"model.path": "${SAEFLOW_UNSET}"}, "model.path", "the environment has no SAEFLOW_UNSET"),
    (
        {"models": [{"name": "other", "path": "${SAEFLOW_UNSET}/other"}]},
        "models.0.path",
        "the environment has no SAEFLOW_UNSET",
    ),
    (
        {"corpus.path": ["a.txt", "${SAEFLOW_UNSET}/b.txt"]},
        "corpus.path.1",
        "the environment has no SAEFLOW_UNSET",
    ),
    ({"corpus.path": ["a.txt", "b.xlsx"]}, "corpus.path", "'b.xlsx' must end in .txt"),
    ({"corpus.path": ["a.txt", "a.txt"]}, "corpus.path", "'a.txt' appears twice; keep one"),
    ({"corpus.path": []}, "corpus.path", "must hold at least 1 item; it holds 0"),
    ({"corpus.path": 7}, "corpus.path", "must be a valid string; got 7"),
    (
        {"saes.main": {"path": "${SAEFLOW_UNSET}/sae"}},
        "saes.main.path",
        "the environment has no SAEFLOW_UNSET",
    ),
    (
        {"steering.goals.directory": "${SAEFLOW_UNSET}"},
        "steering.goals.directory",
        "the environment has no SAEFLOW_UNSET",
    ),
    ({"model": {"name": "lm", "train": {}}}, "model.train", "only on the corpus 'tales'"),
    (
        {"steering.judge.kind": "planted"},
        "steering.judge.kind",
        "'planted' knows only the corpus 'tales'",
    ),
    (
        {
            "steering.completions.prompts": [MESSAGES],
            "steering.judge": {"kind": "openai", "model": "m"},
        },
        "steering.judge.template",
        "set continuation@1, as prompts are messages",
    ),
    (
        {"steering.vectors.methods": ["sae", "sae_planted"]},
        "steering.vectors.methods.1",
        "only the corpus 'tales' plants any",
    ),
]
WRONG_GOALS: list[tuple[dict[str, Any], str, str]] = [
    ({"criterion": MISSING}, "criterion", "is missing"),
    ({"title": MISSING}, "title", "is missing"),
    ({"title": " "}, "title", "must not be blank"),
    ({"topic": "so sad"}, "topic", "must open with a letter or digit"),
    ({"positive": ["one"]}, "positive", "must hold at least 2 items; it holds 1"),
    ({"negative": []}, "negative", "must hold at least 2 items; it holds 0"),
    ({"positive": ["same", "same"]}, "positive", "'same' appears twice"),
    ({"positive": ["one", ""]}, "positive.1", "must not be blank"),
    ({"negative": ["one", "She shouted."]}, "negative", "'She shouted.' is also in positive"),
    ({"words": ["rage", "*"]}, "words", "'*' matches everything"),
    ({"words": ["rage", True]}, "words.1", 'got true (put it in quotes: "...")'),
    ({"word": ["rage"]}, "word", "did you mean 'words'?"),
    (
        {"latents": {"main": {-1: 1.0}}},
        "latents.main.-1",
        "must be greater than or equal to 0; got -1",
    ),
    (
        {"latents": {"main": {"7": 1.0}}},
        "latents.main.7",
        "must be a valid integer; got '7' (write 7)",
    ),
    ({"latents": {"main": {7: math.nan}}}, "latents.main.7", "must be a finite number"),
    ({"latents": {"main": {7: 0.0}}}, "latents.main.7", "weight 0 targets nothing"),
    ({"latents": {"main": {}}}, "latents.main", "must hold at least 1 item"),
    ({"latents": {"main": [7, 8]}}, "latents.main", "must hold keys and values; got [7, 8]"),
]
WRONG_FILES: list[tuple[str, str]] = [
    ("", "is empty; it must hold keys and values"),
    ("# only a remark\n", "is empty; it must hold keys and values"),
    ("- a\n- b\n", "must hold keys and values; it holds a list"),
    ("tales", "must hold keys and values; it holds a str"),
    ("a: [1, 2\nb: 3\n", "is not YAML: line 2, column 2: expected ',' or ']'"),
    (
        "a:\n\tb: 1\n",
        "is not YAML: line 2, column 1: found character '\\t' that cannot start any token",
    ),
    ("a: b: c\n", "is not YAML: line 1, column 5: mapping values are not allowed here"),
    (
        "study: a\nseed: 1\nstudy: b\n",
        "is not YAML: line 3, column 1: 'study' stands twice; keep one",
    ),
    ("a: 1\n---\nb: 2\n", "is not YAML: line 2, column 1: but found another document"),
    ("a: &a {b: *a}\n", "is not YAML: line 1, column 4: found unconstructable recursive node"),
    ("? [a, b]\n: 1\n", "is not YAML: line 1, column 3: found unhashable key"),
    ("[" * 500, "is not YAML: maximum recursion depth exceeded"),
    ("a: \x00\n", "is not YAML: unacceptable character #x0000"),
]


def test_the_minimal_studies_are_accepted() -> None:
    assert check_any_study(STUDY).target_sae == "main"
    assert check_any_study(TEXT).layer == 1


def test_vectors_and_effects_that_are_fetched_need_nothing_that_would_make_them() -> None:
    published = {"repo": "owner/name", "file": "{goal}/{method}.safetensors"}
    vectors = {"effects": None, "steering.vectors.published": published}
    effects = {
        "effects.published": {"repo": "owner/name", "file": "effects.h5"},
        "saes.main": {"published": {"repo": "owner/name"}},
    }
    for changes in (vectors, effects):
        for source in ("auto", "fetch"):
            key = "steering.vectors.source" if changes is vectors else "effects.source"
            check_any_study(changed(TEXT, {**changes, key: source}))
    refused = changed(TEXT, {**vectors, "steering.vectors.source": "compute"})
    assert complaint(refused).startswith("config: steering.vectors.methods: sae_ts, ")


@pytest.mark.parametrize(("changes", "key", "reason"), WRONG_STUDIES, ids=answers(WRONG_STUDIES))
def test_a_wrong_study_is_refused_with_one_line(
    changes: dict[Any, Any], key: str, reason: str
) -> None:
    values = changed(STUDY, {k: v for k, v in changes.items() if isinstance(k, str)})
    values.update({k: v for k, v in changes.items() if not isinstance(k, str)})
    line = complaint(values)
    assert line.startswith(f"config: {key}: ")
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("changes", "key", "reason"), WRONG_TEXT_STUDIES, ids=answers(WRONG_TEXT_STUDIES)
)
def test_a_wrong_study_of_text_is_refused_with_one_line(
    changes: dict[str, Any], key: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAEFLOW_UNSET", raising=False)
    line = complaint(changed(TEXT, changes))
    assert line.startswith(f"config: {key}: ")
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(("changes", "key", "reason"), WRONG_GOALS, ids=answers(WRONG_GOALS))
def test_a_wrong_goal_is_refused_with_one_line(
    changes: dict[str, Any], key: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "anger.yaml"
    file.write_text(yaml.safe_dump(changed(GOAL, changes)))
    with pytest.raises(SaeflowError) as caught:
        read_goal(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: {key}: ")
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize("read", [read_study, read_goal])
@pytest.mark.parametrize(("text", "reason"), WRONG_FILES)
def test_a_file_that_is_no_mapping_is_refused_with_one_line(
    read: Any, text: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(SaeflowError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("study: café\n".encode("latin-1"))
    for name, reason in {
        "absent.yaml": "no such file",
        "latin.yaml": "cannot be read",
        ".": "cannot be read",
    }.items():
        with pytest.raises(SaeflowError, match=reason) as caught:
            read_study(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_several_mistakes_are_told_at_once_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAEFLOW_UNSET", raising=False)
    changes = {
        "sed": 1,
        "corpus.tokens.sae": 3,
        "saes.main.train": {"k": 900, "tokens": 1},
        "hook": "x",
    }
    lines = complaint(
        changed(STUDY, {**changes, "steering.goals.directory": "${SAEFLOW_UNSET}"})
    ).splitlines()
    keys = [line.split(": ")[1] for line in lines]
    expected = [
        "corpus.tokens.sae",
        "hook",
        "saes.main.train.k",
        "saes.main.train.tokens",
        "steering.goals.directory",
        "sed",
    ]
    assert keys == expected


def test_several_disagreements_of_sections_are_told_at_once() -> None:
    changes = {
        "hook": "blocks.7.hook_mlp_out",
        "steering.sae": "x",
        "steering.completions.new_tokens": 99,
        "steering.summary.selection": 0.99,
    }
    lines = complaint(
        changed(
            STUDY, {**changes, "steering.completions.samples": 4, "figures.detail_goals": ["x"]}
        )
    ).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "hook",
        "hook",
        "steering.sae",
        "figures.detail_goals",
        "steering.completions.new_tokens",
    ]


def test_a_mistake_in_one_section_is_told_relative_to_it() -> None:
    with pytest.raises(ValueError, match="k: 9") as caught:
        SAETraining(d_sae=4, k=9)
    assert complaints(caught.value) == ["k: 9 must be smaller than d_sae 4"]


def test_every_pattern_of_the_config_has_words() -> None:
    from saeflow.config.schema import json_schema
    from saeflow.config.section import IN_WORDS

    def patterns(schema: Any) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(patterns, schema))
        if not isinstance(schema, dict):
            return set()
        own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
        return own.union(*map(patterns, schema.values()), schema.get("patternProperties", {}))

    of_core = set().union(*(patterns(json_schema(root)) for root in (Study, Goal)))
    assert of_core == set(IN_WORDS)
    assert patterns(json_schema(ChessStudy)) - {SITE} <= set(IN_WORDS)


def test_the_environment_is_read_in_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEFLOW_DATA", "/data")
    changes = {
        "corpus.path": "${SAEFLOW_DATA}/a$b.txt",
        "effects.measurement.prompts": ["${SAEFLOW_DATA}"],
    }
    study = check_any_study(changed(TEXT, changes))
    assert study.corpus.path == "/data/a$b.txt"
    assert study.effects.measurement.prompts == ["${SAEFLOW_DATA}"]


def test_later_files_go_over_earlier_ones_and_null_undoes_a_key(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(STUDY))
    second.write_text(
        yaml.safe_dump({"seed": 7, **TEXT, "model": {"path": "checkpoint", "train": None}})
    )
    study = read_study(first, second)
    assert (study.seed, study.model.path, study.model.train) == (7, "checkpoint", None)
    assert study.saes["main"].train == SAETraining(d_sae=64)


def test_a_study_survives_yaml_and_json_unchanged(tmp_path: Path) -> None:
    for values in (STUDY, TEXT):
        study = check_any_study(values)
        (tmp_path / "full.yaml").write_text(yaml.safe_dump(study.model_dump()))
        assert read_study(tmp_path / "full.yaml") == study
        assert Study.model_validate_json(study.model_dump_json()) == study


def test_latents_of_a_goal_are_numbered_and_its_topic_is_its_name(tmp_path: Path) -> None:
    file = tmp_path / "anger.yaml"
    file.write_text(yaml.safe_dump(GOAL) + "latents: {main: {0: 1, 203: -0.5}}\n")
    goal = read_goal(file)
    assert goal.latents == {"main": {0: 1.0, 203: -0.5}}
    assert goal.topic == "anger"
    assert Goal.model_validate_json(goal.model_dump_json()) == goal


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "anger.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(GOAL, allow_unicode=True).encode())
    assert read_goal(file).title == "Anger"


@pytest.mark.parametrize("template", ["tokenizer_config.json", "chat_template.jinja", None])
def test_messages_for_a_local_model_without_a_chat_template_are_refused_before_any_job(
    template: str | None, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    values = changed(
        TEXT, {"model.path": str(tmp_path), "steering.completions.prompts": ["I think", MESSAGES]}
    )
    if template:
        (tmp_path / template).write_text('{"chat_template": "{{ messages }}"}')
        assert check_any_study(values).steering.completions.prompts[1][0].content == "Hi"
    else:
        refusal = complaint(values)
        assert refusal.startswith(
            f"config: steering.completions.prompts.1: holds messages, and the tokenizer in {tmp_path} has no"
        )


@pytest.mark.parametrize(
    "says",
    [
        {"max_position_embeddings": 32},
        {"n_positions": 32},
        {"text_config": {"max_position_embeddings": 32}},
    ],
)
def test_text_longer_than_the_context_of_a_local_model_is_refused_before_any_job(
    says: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint_folder(tmp_path, json.dumps(says))
    changes = {
        "model.path": str(tmp_path),
        "corpus.context": 33,
        "effects.measurement.new_tokens": 32,
        "steering.completions.new_tokens": 31,
    }
    with pytest.raises(SaeflowError) as error:
        check_any_study(changed(TEXT, changes))
    first, second = str(error.value).splitlines()
    assert "corpus.context: 33 is more than the context of" in first
    assert ", 32 (max_position_embeddings); lower it" in first
    assert "effects.measurement.new_tokens: 32 and a prompt do not fit the context of" in second
    assert check_any_study(
        changed(TEXT, changes | {"corpus.context": 32, "effects.measurement.new_tokens": 16})
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"max_position_embeddings": null}'])
def test_a_local_model_that_does_not_say_its_context_is_left_to_the_job_that_loads_it(
    text: str, tmp_path: Path
) -> None:
    checkpoint_folder(tmp_path, text)
    assert check_any_study(changed(TEXT, {"model.path": str(tmp_path), "corpus.context": 2048}))


@pytest.mark.parametrize(
    "depth", [{"num_hidden_layers": 6}, {"text_config": {"model_type": "t", "n_layer": 6}}]
)
def test_a_hook_at_a_layer_that_the_model_lacks_is_refused_before_any_job(
    depth: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint_folder(tmp_path, json.dumps(depth))
    last = {"model.path": str(tmp_path), "hook": "blocks.5.hook_resid_post"}
    assert check_any_study(changed(TEXT, last))
    refusal = complaint(changed(TEXT, last | {"hook": "blocks.6.hook_resid_post"}))
    assert refusal == (f"config: hook: layer 6 does not exist; the model of {tmp_path} has 0 to 5")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("tokenizer.json", "has no tokenizer; put its tokenizer.json there"),
        ("model.safetensors", "has no weights in .safetensors files; convert the checkpoint first"),
    ],
)
def test_a_checkpoint_without_one_of_its_files_is_refused_before_any_job(
    file: str, reason: str, tmp_path: Path
) -> None:
    checkpoint_folder(tmp_path, "{}")
    (tmp_path / file).unlink()
    refusal = complaint(changed(TEXT, {"model.path": str(tmp_path)}))
    assert refusal == f"config: model.path: {tmp_path}: {reason}"


def test_a_misspelt_choice_is_answered_with_the_one_like_it() -> None:
    refusal = complaint(changed(TEXT, {"steering.vectors.methods": ["caa", "sea_ts"]}))
    assert refusal.endswith("got 'sea_ts'; did you mean 'sae_ts'?")
    refusal = complaint(changed(TEXT, {"steering.judge.kind": "xyzzy"}))
    assert refusal.endswith("got 'xyzzy'")


def checkpoint_folder(folder: Path, config: str) -> None:
    """The files that a checkpoint is known by."""
    (folder / "config.json").write_text(config)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").touch()


@pytest.mark.parametrize(
    ("pairs", "key", "reason"),
    [
        ([], "pairs", "at least 2"),
        ([{"text": "a", "answer": "b", "label": "x"}] * 2, "pairs.1", "asks what pairs.0 asks"),
        (
            [{"text": text, "answer": "b", "label": text} for text in "ab"],
            "pairs",
            "label 'a' has one pair, and one is held out",
        ),
        (
            [{"text": "a", "answer": "b", "label": "x"}, {"answer": "b", "label": "x"}],
            "pairs.1.text",
            "give either text or messages",
        ),
        (
            [
                {"text": "a", "answer": "b", "label": "x"},
                {
                    "messages": [{"role": "assistant", "content": "a"}],
                    "answer": "b",
                    "label": "x",
                },
            ],
            "pairs.1.messages",
            "must end with what the user says",
        ),
    ],
)
def test_pairs_that_teach_nothing_are_refused_by_their_key(
    tmp_path: Path, pairs: list[object], key: str, reason: str
) -> None:
    file = tmp_path / "pairs.yaml"
    file.write_text(json.dumps({"pairs": pairs}))
    with pytest.raises(SaeflowError, match=rf"^\S+pairs.yaml: {key}: .*{reason}"):
        read_pairs(file)


def test_a_variable_is_read_from_the_environment_in_every_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAEFLOW_HERE", "/data")
    sets = {"logit_lens": {"token_sets": {"files": ["${SAEFLOW_HERE}/sets.yaml"]}}, "examples": {}}
    study = check_any_study(
        changed(
            TEXT,
            {
                "corpus.path": ["${SAEFLOW_HERE}/a.txt", "b.txt"],
                "models": [{"name": "other", "path": "${SAEFLOW_HERE}/other"}],
                "saes.other": {"train": {"init_from": "${SAEFLOW_HERE}/sae", "d_sae": 8, "k": 2}},
                **sets,
            },
        )
    )
    assert isinstance(study, Study)
    assert study.corpus.paths == ["/data/a.txt", "b.txt"]
    assert study.models[0].path == "/data/other"
    assert study.saes["other"].train
    assert study.saes["other"].train.init_from == "/data/sae"
    assert study.logit_lens
    assert study.logit_lens.token_sets.files == ["/data/sets.yaml"]
    positions = {"path": ["${SAEFLOW_HERE}/1.pgn"], "test": ["${SAEFLOW_HERE}/2.pgn"]}
    chess = check_any_study({**study_config("minimal-chess"), "positions": positions})
    assert isinstance(chess, ChessStudy)
    assert chess.positions.paths + chess.positions.test == ["/data/1.pgn", "/data/2.pgn"]
