"""Where an artifact lies follows from what is published, what is on disk, and what the config
insists on."""

from __future__ import annotations

from functools import reduce
from operator import getitem

import pytest
from studies import changed, study_config

from saeflow.config import Published
from saeflow.config.locations import PUBLISHED, location, origin
from saeflow.kinds import check_any_study

HOOK = "blocks.2.hook_resid_post"
FROM = {"repo": "some/set", "repo_type": "dataset"}
STUDY = study_config("all-published")
ARTIFACTS = [
    ("model", "models/lm"),
    ("activations", f"activations/lm/{HOOK}/manifest.json"),
    ("effects", "effects/main/effects.h5"),
    ("effects.approximator", "effects/main/approximator.safetensors"),
    ("steering.vectors", "steering/anger/caa/vector.safetensors"),
]


@pytest.mark.parametrize(("section", "path"), ARTIFACTS)
@pytest.mark.parametrize(
    ("source", "own_is_there", "ours"),
    [
        *(("auto", False, False), ("auto", True, True)),
        *(("compute", False, True), ("compute", True, True)),
        *(("fetch", False, False), ("fetch", True, False)),
    ],
)
def test_auto_takes_our_own_first_and_the_others_insist(
    section: str, path: str, source: str, own_is_there: bool, ours: bool
) -> None:
    study = check_any_study(changed(STUDY, {f"{section}.source": source}))
    place = location(study, path, lambda file: own_is_there and file == f"results/mine/{path}")
    values = reduce(getitem, section.split("."), STUDY)
    offered = Published(**values["published"])
    assert place == (f"results/mine/{path}" if ours else f"{PUBLISHED}/{offered.folder()}/{path}")


@pytest.mark.parametrize(
    "path",
    [
        "models/lm.metrics.json",
        "saes/main/metrics.json",
        "saes/own/cfg.json",
        "effects/main/baseline.safetensors",
        "effects/own/effects.h5",
        "effects/main/metrics.json",
        "activations/lm/blocks.1.hook_resid_post/manifest.json",
        "steering/summary.parquet",
        "steering/anger/latents.json",
    ],
)
def test_what_follows_from_artifacts_is_always_our_own(path: str) -> None:
    study = check_any_study(STUDY)
    assert location(study, path, lambda _: False) == f"results/mine/{path}"


def test_another_source_is_another_folder_with_a_name_to_read() -> None:
    study = check_any_study(STUDY)
    first = Published(repo="google/gemma-scope-2b-pt-res", file="a/params.npz")
    others = [
        first.model_copy(update=change)
        for change in (
            {"file": "b/params.npz"},
            {"revision": "v2"},
            {"sha256": "0" * 64},
            {"repo_type": "dataset"},
        )
    ]
    names = {source.folder() for source in [first, *others]} | {first.folder("another format")}
    assert len(names) == 6
    assert first.folder().startswith("google--gemma-scope-2b-pt-res@main-")
    assert "/" not in first.model_copy(update={"revision": "refs/pr/7"}).folder()
    assert origin(study, "saes/main/cfg.json") != origin(study, "saes/own/cfg.json")


def test_a_cache_with_a_place_for_the_hook_is_fetched_at_every_hook() -> None:
    published = {**FROM, "file": "caches/{hook}"}
    study = check_any_study(
        {**STUDY, "activations": {**STUDY["activations"], "published": published}}
    )
    for hook in study.cached_hooks:
        assert location(study, f"activations/lm/{hook}/manifest.json", lambda _: False).startswith(
            PUBLISHED
        )
