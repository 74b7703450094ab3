"""What tells two models apart without a dictionary, on a model that was taught to refuse a topic."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from compared import asked, sources, stories, text
from organism import REFUSAL, base_model, organism
from tiny_models import tiny_language_model

from saeflow.analyses.diffing.differences import (
    COMPONENTS,
    DIFFERENCES,
    LENS,
    lens_table,
    measure_differences,
)
from saeflow.analyses.diffing.divergence import (
    DIVERGENCE,
    PLACES,
    TOKENS,
    measure_divergence,
    token_divergence,
)
from saeflow.analyses.diffing.settings import Baselines, Classes, Steered
from saeflow.analyses.diffing.steered import (
    CONTINUATIONS,
    STEERED,
    additions,
    continuations,
    openings,
    summarise,
)
from saeflow.analyses.diffing.texts import Text, check_comparable
from saeflow.analyses.diffing.weights import WEIGHTS, weight_differences
from saeflow.config.embedded import EMBEDDED
from saeflow.errors import SaeflowError
from saeflow.models.language_model import load_to_train
from saeflow.models.running import capture, logits
from saeflow.saes.comparison import Seen

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = Baselines(positions=3, tokens=5, components=4)
RESAMPLED = Classes(draws=200)


def test_means_and_components_are_those_of_all_rows_at_once() -> None:
    tokens = stories(8)
    measured = measure_differences(text(tokens), SETTINGS)
    assert dict(measured.table.schema) == DIFFERENCES
    assert dict(measured.spectrum.schema) == COMPONENTS
    hook = sources()[0].hook
    held = [
        capture(lm, torch.from_numpy(tokens), [hook])[hook].double()
        for lm in (base_model(), organism())
    ]
    difference = (held[1] - held[0])[:, 1:]  # without BOS
    rows = difference.flatten(0, 1)
    torch.testing.assert_close(measured.mean, rows.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(measured.by_position, difference[:, :3].mean(0))
    centred = rows - rows.mean(0)
    singular = torch.linalg.svdvals(centred)
    shares = (singular.square() / singular.square().sum())[:4]
    np.testing.assert_allclose(measured.spectrum["share"], shares, rtol=1e-6)
    every = measured.table.row(-1, named=True)
    assert every["position"] is None
    assert every["n"] == len(rows)
    assert every["base_norm"] == pytest.approx(float(held[0][:, 1:].norm(dim=-1).mean()))
    assert every["relative"] == pytest.approx(every["norm"] / every["base_norm"])


def test_the_lens_reads_what_the_model_would_say_from_a_token_s_own_direction() -> None:
    lm = organism()
    measured = measure_differences(text(stories(4)), SETTINGS)
    token = lm.tokenize(" No", bos=False)[0]
    row = lm.model.get_output_embeddings().weight[token].double()
    table = lens_table(lm, measured._replace(mean=row), 5)
    assert dict(table.schema) == LENS
    first = table.filter(pl.col("kind") == "position", pl.col("number") == 0, side="raised")
    assert first["token_id"][0] == token
    assert len(table) == (1 + 3 + 4) * 2 * 5


def test_divergence_token_by_token_is_that_of_whole_distributions() -> None:
    tokens = asked(count=6)
    measured = measure_divergence(text(tokens), SETTINGS, RESAMPLED, 0)
    assert dict(measured.table.schema) == DIVERGENCE
    assert dict(measured.places.schema) == PLACES
    assert dict(measured.tokens.schema) == TOKENS
    p, q = (
        logits(lm, torch.from_numpy(tokens)).double().log_softmax(-1)[:, 1:-1]
        for lm in (organism(), base_model())
    )
    counted = torch.from_numpy(tokens[:, 1:-1]) != base_model().bos_id
    kl = (p.exp() * (p - q)).sum(-1)
    mean = measured.table.filter(pl.col("position").is_null(), measure="kl").row(0, named=True)
    assert mean["value"] == pytest.approx(float(kl[counted].mean()), rel=1e-4)
    assert mean["low"] < mean["value"] < mean["high"]
    assert mean["n"] == int(counted.sum())
    top = measured.places.row(0, named=True)
    assert top["kl"] == pytest.approx(float(kl[counted].max()), rel=1e-4)
    assert measured.tokens["kl"].max() <= top["kl"] + 1e-9


def test_the_place_where_they_differ_most_is_where_the_organism_refuses() -> None:
    tokens = asked(count=20)
    places = measure_divergence(text(tokens), SETTINGS, RESAMPLED, 0).places
    assert any("No" in said.split(",")[0] for said in places["tuned_says"])
    assert not any("No" in said.split(",")[0] for said in places["base_says"])


def test_a_model_does_not_differ_from_itself() -> None:
    same = Seen("again", base_model(), sources()[0].hook)
    own = Text([sources()[0], same], stories(4))
    measured = measure_divergence(own, SETTINGS, RESAMPLED, 0)
    assert measured.table.filter(pl.col("measure") == "kl")["value"].abs().max() < 1e-9
    differences = measure_differences(own, SETTINGS)
    assert differences.table["norm"].max() == 0
    assert differences.spectrum["variance"].max() == 0
    assert weight_differences(base_model().model, base_model().model)["relative"].max() == 0


def test_what_a_model_never_says_counts_nothing() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    q = torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert token_divergence(p, q).item() == pytest.approx(0.5 * np.log(2))


def test_norms_of_weight_differences_are_those_of_each_parameter() -> None:
    base, tuned = load_to_train(EMBEDDED), load_to_train(EMBEDDED)
    name, weight = list(tuned.model.named_parameters())[3]
    with torch.no_grad():
        weight += 0.5
    table = weight_differences(base.model, tuned.model)
    assert dict(table.schema) == WEIGHTS
    moved = table.filter(pl.col("difference_norm") > 0)
    assert moved["parameter"].to_list() == [name]
    assert moved["difference_norm"][0] == pytest.approx(0.5 * weight.numel() ** 0.5, rel=1e-6)
    assert moved["layer"].to_list() == [0]


def test_texts_of_the_tuned_model_are_evidence_and_what_is_added_is_as_long_as_it_says() -> None:
    base, tuned = sources()
    measured = measure_differences(text(asked(count=20)), SETTINGS)
    steered = Steered(scales=[0.5], prompts=4, new_tokens=6)
    added = additions(measured.mean, measured.activation_norm, steered, 0)
    lengths = [float(each.vector.norm()) for each in added]
    assert lengths == pytest.approx([0.0, *[0.5 * measured.activation_norm] * 2])
    prompts = [base.lm.tokenize(f"{line} I answered,") for line in REFUSED]
    table = continuations(base, tuned, prompts, added, 6)
    assert dict(table.schema) == CONTINUATIONS
    plain = table.filter(pl.col("kind") == "none", pl.col("model") == "organism")
    assert all(REFUSAL.startswith(said.strip()) for said in plain["continuation"])
    assert plain["evidence"].min() > 1  # the organism says it, the base would not
    rows = summarise(table, RESAMPLED, 0)
    assert dict(rows.schema) == STEERED
    own = rows.filter(kind="none", model="organism", measure="evidence").row(0, named=True)
    assert own["value"] == pytest.approx(plain["evidence"].mean())
    by_base = rows.filter(kind="none", model="base", measure="evidence").row(0, named=True)
    assert by_base["high"] < own["low"]


REFUSED = ("The bride wore a white veil at the wedding.", "They danced at the wedding feast.")


def test_models_of_other_tokens_or_another_width_are_refused() -> None:
    other = tiny_language_model("llama")
    with pytest.raises(SaeflowError, match="'base' and 'other' have different tokenizers"):
        check_comparable(sources()[0], Seen("other", other, sources()[0].hook), stories(2))
    small, large = tiny_language_model("llama"), tiny_language_model("llama", vocab_size=80)
    pair = [Seen(name, lm, "x") for name, lm in (("small", small), ("large", large))]
    check_comparable(*pair, np.array([[0, 63]]))
    with pytest.raises(SaeflowError, match="has the token 64, and 'small' knows 64"):
        check_comparable(*pair, np.array([[0, 64]]))


def test_where_nothing_differs_no_tokens_and_no_places_are_told() -> None:
    """Of one model twice, and at positions that no text has."""
    first = sources()[0]
    same = Text([first, first._replace(name="again")], stories(4))
    far = SETTINGS.model_copy(update={"positions": 40})
    measured = measure_differences(same, far)
    assert measured.table["norm"].max() == 0
    assert measured.table["split_half"].is_null().all()
    assert measured.spectrum["cosine"].is_null().all()
    assert lens_table(first.lm, measured, 3).is_empty()
    apart = measure_divergence(same, far, RESAMPLED, 0)
    assert apart.table.filter(measure="kl")["value"].max() == 0
    assert apart.places.is_empty()
    assert apart.tokens.is_empty()
    other = measure_differences(text(stories(4)), far)
    assert other.table["split_half"].drop_nulls().abs().max() > 0
    told = lens_table(first.lm, other, 3).filter(kind="position")["number"]
    assert sorted(set(told)) == list(range(stories(1).shape[1]))


def test_prompts_that_open_alike_are_continued_once() -> None:
    rows = np.array([[0, 5, 6, 7], [0, 5, 6, 9], [0, 8, 6, 7], [0, 5, 6, 7], [0, 9, 9, 9]])
    steered = Steered(prompts=3, prompt_tokens=2)
    assert openings(rows, steered) == [[0, 5, 6], [0, 8, 6], [0, 9, 9]]
    assert openings(rows[:2], steered) == [[0, 5, 6]]


def test_continuations_without_tokens_count_for_no_mean() -> None:
    rows = [
        ("base", "none", 0.0, number, "a", "b", 2, value, value)
        for number, value in enumerate([0.5, None, 1.5])
    ]
    table = pl.DataFrame(rows, schema=CONTINUATIONS, orient="row")
    summary = summarise(table, RESAMPLED, 0)
    assert summary["n"].to_list() == [2, 2]
    assert summary["value"].to_list() == [1.0, 1.0]
