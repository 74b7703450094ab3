"""The tables of dreams: what is told of a search is so, and a search that is kept is not made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from planted_bigrams import HOOK, bigram_model, bigram_sae

from saeflow.analyses.dreaming.contexts import ContextWindows
from saeflow.analyses.dreaming.dreams import SCHEMAS, Workshop, _Studio, distinctness, dream
from saeflow.analyses.dreaming.fronts import Front
from saeflow.analyses.dreaming.search import Search
from saeflow.analyses.dreaming.settings import Dreaming
from saeflow.analyses.dreaming.targets import of_an_sae, without_sae
from saeflow.errors import SaeflowError
from saeflow.models.running import run_prefix
from saeflow.parts import Parts

LM = bigram_model(30)
SAE = bigram_sae(LM, [(3, 17), (21, 8)])
CONTEXTS = pl.DataFrame(
    {
        "latent": [0, 0, 1],
        "activation": [0.9, 0.7, 0.8],
        "offset": [4, 1, 3],
        "token_ids": [[5, 0, 9, 3, 17, 2], [3, 17, 4], [1, 2, 21, 8]],
    }
)
LATENTS = pl.DataFrame({"latent": [0, 1], "density": [0.1, 0.0], "maximum": [0.9, 0.8]})
WINDOWS = ContextWindows(CONTEXTS, LATENTS, bos=0)
ASKED = {
    "targets": {
        "latents": {"main": [0]},
        "together": {"both": {"sae": "main", "latents": [0, 1], "combine": "sum"}},
    },
    "search": {
        "methods": ["adaptive", "random"], "length": 4, "rounds": 4, "children": 4, "top": 8,
        "population": 4,
    },
    "report": {"prompts": 4, "swaps": 29},
}  # fmt: skip


def dreamt(parts: Path | None = None, **changes: Any) -> dict[str, pl.DataFrame]:
    asked = Dreaming.model_validate({**ASKED, **changes}, strict=False)
    groups = of_an_sae(SAE, "main", HOOK, asked, WINDOWS, 0)
    work = Workshop(LM, asked, 0, WINDOWS, Parts(parts, "searches", ("analyses/dreaming",)), None)
    return dream(work, groups)


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    return dreamt()


def test_dreams_begin_with_contexts_and_are_held_against_them(
    tables: dict[str, pl.DataFrame],
) -> None:
    contexts = tables["contexts"].filter(target="0")
    assert contexts["token_ids"].to_list() == [[9, 3, 17], [3, 17]]
    assert contexts["value"].min() > 0
    for row in tables["targets"].filter(target="0").to_dicts():
        assert row["best"] >= contexts["value"].max() - 1e-5
        assert row["context_activation"] == pytest.approx(0.9)
        assert row["beats_activation"] == (row["best"] > 0.9)
        assert row["beats_matched"] == (row["matched"] > row["context_value"])
        assert row["scale"] == pytest.approx(0.09)
    both = tables["targets"].filter(target="both").row(0, named=True)
    assert both["latents"] == [0, 1]
    assert both["beats_activation"] is None


def test_no_prompt_of_the_data_beats_itself_by_rounding() -> None:
    """Of a latent whose context is the best of all prompts, a search finds that context again, with
    a value that may differ by how many were run at once."""
    best = ContextWindows(
        pl.DataFrame(
            {"latent": [0], "activation": [0.9], "offset": [4], "token_ids": [[0, 9, 12, 3, 17]]}
        ),
        LATENTS,
        bos=0,
    )
    asked = Dreaming.model_validate(ASKED, strict=False)
    (group,) = of_an_sae(SAE, "main", HOOK, asked, best, 0)
    work = Workshop(LM, asked, 0, best, Parts(None, "s", ()), None)
    studio = _Studio(work, group)
    contexts = studio.contexts(0)
    prompt, value, loss = (contexts[0][key] for key in ("token_ids", "value", "cross_entropy"))
    again = Front(np.array([prompt]), np.array([value + 1e-6]), np.array([loss]))
    row = studio.summary(group.targets[0], again, contexts)
    assert row["best"] == value + 1e-6
    assert (row["beats_matched"], row["matched"]) == (False, None)
    assert not studio.summary(group.targets[0], again, [contexts[0] | {"activation": 0.0}])[
        "beats_activation"
    ]
    other = again._replace(prompts=np.array([[9, 12, 4, 17]]))
    assert studio.summary(group.targets[0], other, contexts)["beats_matched"]


def test_a_job_that_is_killed_while_tables_are_kept_searches_for_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Dreaming.model_validate(ASKED, strict=False)
    groups = of_an_sae(SAE, "main", HOOK, asked, WINDOWS, 0)

    def work() -> Workshop:
        parts = Parts(tmp_path, "searches", ("analyses/dreaming",))
        return Workshop(LM, asked, 0, WINDOWS, parts, tmp_path / "search.pt")

    whole = dream(work(), groups)
    (tmp_path / "searches/latents-both-random.parquet").unlink()  # the last of its two to be kept
    with monkeypatch.context() as patched:
        patched.setattr(Search, "_round", None)
        patched.setattr(Search, "_opened", None)
        again = dream(work(), groups)
    for name, table in whole.items():
        assert table.equals(again[name])


def test_what_is_told_of_a_prompt_is_what_its_text_gives(tables: dict[str, pl.DataFrame]) -> None:
    assert set(tables) == set(SCHEMAS)
    for row in tables["fronts"].filter(target="0").to_dicts():
        assert row["reads_back"]
        tokens = LM.tokenize(row["text"])
        assert tokens[1:] == row["token_ids"]
        stream = run_prefix(LM, torch.tensor([tokens]), 0)
        along = (stream[0, 1:] @ SAE.W_enc + SAE.b_enc)[:, 0]
        assert row["along"] == pytest.approx(along.tolist(), abs=1e-4)
        assert row["value"] == pytest.approx(float(along[-1]), abs=1e-4)
        assert row["text_value"] == pytest.approx(row["value"], abs=1e-4)


def test_the_two_tokens_of_a_bigram_lend_its_latent_what_it_has(
    tables: dict[str, pl.DataFrame],
) -> None:
    row = tables["fronts"].filter(target="0").sort("value").row(-1, named=True)
    assert row["token_ids"][-2:] == [3, 17]
    assert sorted(np.argsort(row["lent"])[-2:]) == [2, 3]
    assert row["lent"][0] == pytest.approx(0, abs=1e-4)


def test_methods_spend_alike_and_fronts_rise(tables: dict[str, pl.DataFrame]) -> None:
    spent = tables["targets"].filter(target="0")["spent"].to_list()
    assert max(spent) <= 1.3 * min(spent)
    for _, front in tables["fronts"].group_by("target", "method"):
        own = front.sort("place")
        assert own["value"].is_sorted()
        assert own["cross_entropy"].is_sorted()


def test_searches_that_are_kept_are_not_made_again_and_methods_are_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_alone = dict(ASKED["search"], methods=["random"])  # type: ignore[call-overload]
    first = dreamt(tmp_path, search=random_alone)
    both = dreamt(tmp_path)
    assert "kept from an earlier run: latent-0-random" in capsys.readouterr().err
    again = both["fronts"].filter(method="random")
    assert again.equals(first["fronts"])


def test_latents_are_drawn_among_those_that_fire() -> None:
    assert WINDOWS.drawn(2, 5, 0, "main") == [0]
    assert ContextWindows(pl.DataFrame(), pl.DataFrame(), 0).drawn(9, 3, 0, "main") != [0, 1, 2]
    asked = Dreaming.model_validate({"targets": {"latents": {"main": [7]}}})
    with pytest.raises(SaeflowError, match="there is no latent 7"):
        of_an_sae(SAE, "main", HOOK, asked, WINDOWS, 0)


def test_directions_and_logits_are_dreamed_of_without_an_sae(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "direction.safetensors"
    save_file({"vector": SAE.W_dec[0].contiguous()}, file)
    logits = {"next": {"token": "w4"}, "pair": {"token": "w4", "against": "w9"}}
    asked = Dreaming.model_validate(
        {**ASKED, "targets": {"directions": {"way": "x"}, "logits": logits}}, strict=False
    )
    groups = without_sae(LM, HOOK, asked, {"way": file})
    windows = ContextWindows.read(None, 0)
    made = dream(Workshop(LM, asked, 0, windows, Parts(None, "s", ()), None), groups)
    assert made["targets"]["target"].unique(maintain_order=True).to_list() == [
        "way", "next", "pair",
    ]  # fmt: skip
    best = made["fronts"].filter(target="next").sort("value").row(-1, named=True)
    with torch.no_grad():
        said = LM.model(torch.tensor([[0, *best["token_ids"]]])).logits[0, -1]
    others = torch.cat([said[:4], said[5:]])
    assert best["value"] == pytest.approx(float(said[4] - others.max()), abs=1e-4)
    wrong = Dreaming.model_validate({"targets": {"logits": {"a": {"token": "lizard"}}}})
    with pytest.raises(SaeflowError, match="'lizard' is no token"):
        without_sae(LM, HOOK, wrong, {})
    for wrong_vector in (torch.ones(3), torch.zeros(LM.d_model), torch.full((LM.d_model,), np.nan)):
        save_file({"vector": wrong_vector}, file)
        with pytest.raises(SaeflowError, match="one vector of width"):
            without_sae(LM, HOOK, asked, {"way": file})


def test_a_search_for_another_token_is_made_anew(tmp_path: Path) -> None:
    def of(token: str) -> pl.DataFrame:
        targets = {"logits": {"next": {"token": token}}}
        asked = Dreaming.model_validate({**ASKED, "targets": targets}, strict=False)
        windows = ContextWindows.read(None, 0)
        parts = Parts(tmp_path, "searches", ("analyses/dreaming",))
        work = Workshop(LM, asked, 0, windows, parts, tmp_path / "search.pt")
        return dream(work, without_sae(LM, HOOK, asked, {}))["fronts"]

    first = of("w4")
    assert not of("w9")["value"].equals(first["value"])
    assert of("w4").equals(first)


def test_prompts_are_as_distinct_as_their_tokens() -> None:
    assert distinctness(np.array([[1, 2], [1, 3]])) == pytest.approx(2 / 3)
    assert distinctness(np.array([[1, 2]])) is None
