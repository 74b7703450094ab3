"""What is put in of the difference between two models, and what it recovers."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from largest_tensor import LargestTensor

from saeflow.analyses.diffing.causal import CAUSAL, Difference, Parts, measure_causes
from saeflow.analyses.diffing.causal import asked as tried
from saeflow.analyses.diffing.classes import class_tables
from saeflow.analyses.diffing.contexts import (
    CONTEXTS,
    DECODERS,
    SCATTER,
    decoder_tokens,
    drawn_activations,
    find_contexts,
    shown_latents,
)
from saeflow.analyses.diffing.prompts import AskedPrompts, drawn_prompts, read_prompts
from saeflow.analyses.diffing.scaling import Pass, Sides, as_if_both_were, sides_by_model
from saeflow.analyses.diffing.settings import Causal, CausalPrompts, Classes, Shown
from saeflow.analyses.diffing.texts import Text
from saeflow.config.embedded import EMBEDDED
from saeflow.corpora.tales import story_blocks
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel, load_model
from saeflow.models.running import logits
from saeflow.saes.comparison import Seen
from saeflow.saes.crosscoder import Crosscoder, difference_as_crosscoder
from saeflow.saes.sae import SAE

pytestmark = pytest.mark.usefixtures("one_thread")
HOOK, SIDES = "blocks.1.hook_resid_post", Sides([0], [1])
RESAMPLED = Classes(draws=100, groups=4)
SETTINGS = Causal(numbers=[1, 4], singles=2, random=2)


@cache
def models() -> tuple[LanguageModel, LanguageModel]:
    """A model, and the same with noise in all its weights."""
    generator = torch.Generator().manual_seed(0)
    base, tuned = load_model(EMBEDDED), load_model(EMBEDDED)
    for weight in tuned.model.parameters():
        weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=generator)
    return base, tuned


@cache
def tokens() -> np.ndarray:
    return story_blocks(0, "eval", 6, 24).tokens.astype(np.int64)


def text() -> Text:
    base, tuned = models()
    return Text([Seen("base", base, HOOK), Seen("tuned", tuned, HOOK)], tokens())


@cache
def crosscoder() -> Crosscoder:
    """Random directions, of which a few fire."""
    generator = torch.Generator().manual_seed(1)
    x = torch.cat([passed.x for passed in text().passes()])
    encoder = torch.randn(2, 64, 20, generator=generator) / 8
    return Crosscoder(
        W_enc=encoder,
        W_dec=0.5 * torch.randn(20, 2, 64, generator=generator) / 8,
        b_enc=-torch.einsum("rsd,sdl->rl", x, encoder).quantile(0.8, dim=0),
        b_dec=x.mean(0),
        scale=torch.ones(2),
    )


@cache
def latents() -> pl.DataFrame:
    measured = Pass(crosscoder(), SIDES, RESAMPLED.groups)
    for passed in text().passes(RESAMPLED.groups):
        measured.add(passed.x, passed.group)
    return class_tables(measured, "tuned", RESAMPLED, 0)[0]


@cache
def causes() -> pl.DataFrame:
    return measure_causes(crosscoder(), SIDES, text(), tried(latents(), SETTINGS), RESAMPLED, 0)


def row(kind: str, number: int | None = None, name: str | None = None) -> dict:
    rows = causes().filter(pl.col("kind") == kind)
    rows = rows if number is None else rows.filter(number=number)
    same = pl.col("name").is_null() if name is None else pl.col("name") == name
    return rows.filter(same).row(0, named=True)


def test_one_block_tells_what_is_recovered_and_no_interval() -> None:
    block = text()._replace(tokens=text().tokens[:1])
    asked_for = tried(latents(), SETTINGS)
    table = measure_causes(crosscoder(), SIDES, block, asked_for, RESAMPLED, 0)
    assert table["recovered"].drop_nulls().len() > 4
    for name in ("kl_low", "kl_high", "recovered_low", "recovered_high"):
        assert table[name].null_count() == len(table), name


def test_two_blocks_say_of_no_divergence_that_it_is_below_zero_or_wholly_recovered_and_more() -> (
    None
):
    blocks = text()._replace(tokens=text().tokens[:2])
    asked_for = tried(latents(), SETTINGS)
    table = measure_causes(crosscoder(), SIDES, blocks, asked_for, RESAMPLED, 0)
    assert table["kl_low"].min() == 0
    assert table["recovered_high"].max() == 1


def test_everything_recovers_the_whole_to_rounding_and_nothing_recovers_none() -> None:
    assert dict(causes().schema) == CAUSAL
    assert row("none")["recovered"] == 0
    assert row("none")["kl"] > 0.001
    whole = row("everything")
    assert whole["recovered"] == pytest.approx(1, abs=1e-6)
    assert whole["kl"] == pytest.approx(0, abs=1e-7)


def test_all_latents_with_biases_and_error_are_the_whole_difference() -> None:
    x = torch.randn(40, 2, 64, generator=torch.Generator().manual_seed(3))
    parts = Parts(crosscoder(), SIDES, torch.zeros(1, 64), 0)
    made = parts.of(x, crosscoder().encode(x))
    summed = made["latents"] + made["bias"] + made["error"]
    torch.testing.assert_close(summed, x[:, 1:] - x[:, :1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made["everything"], x[:, 1:] - x[:, :1])
    own = Difference("class", "shared", list(range(crosscoder().d_sae)))
    torch.testing.assert_close(parts.chosen(own, crosscoder().encode(x)), made["latents"])


def test_latents_of_an_sae_of_the_difference_are_put_in_as_a_crosscoder_s_are() -> None:
    generator = torch.Generator().manual_seed(4)
    decoder = torch.randn(12, 64, generator=generator) / 8
    named = [{"model": name, "hook": HOOK} for name in ("base", "tuned")]
    sae = SAE(
        "standard",
        *(decoder.T.contiguous(), decoder, torch.zeros(12), torch.randn(64, generator=generator)),
        metadata={"difference": named},
    )
    apart = difference_as_crosscoder(sae)
    x = torch.randn(40, 2, 64, generator=generator)
    difference = x[:, 1] - x[:, 0]
    z = sae.encode(difference)
    made = Parts(apart, SIDES, torch.zeros(1, 64), 0).of(x, apart.encode(x))
    torch.testing.assert_close(made["latents"][:, 0], z @ decoder, rtol=1e-4, atol=1e-5)
    left = difference - sae.decode(z)
    torch.testing.assert_close(made["error"][:, 0], left, rtol=1e-4, atol=1e-5)
    measured = Pass(apart, SIDES, RESAMPLED.groups)
    for passed in text().passes(RESAMPLED.groups):
        measured.add(passed.x, passed.group)
    own, _ = class_tables(measured, "tuned", RESAMPLED, 0)
    chosen = shown_latents(own, Shown(latents=3))
    contexts = find_contexts(apart, SIDES, text(), chosen, Shown(contexts=2))
    assert contexts["activation_base"].null_count() == len(contexts) > 0
    assert drawn_activations(apart, SIDES, text(), chosen, Shown(), 0).is_empty()
    raised = decoder_tokens(apart, SIDES, text(), chosen, Shown())
    assert raised["side"].unique().to_list() == ["tuned"]
    rows = measure_causes(apart, SIDES, text(), tried(own, SETTINGS), RESAMPLED, 0)
    recovered = dict(rows.filter(pl.col("name").is_null()).select("kind", "recovered").iter_rows())
    assert recovered["everything"] == pytest.approx(1, abs=1e-6)
    assert recovered["none"] == 0


def test_random_directions_have_the_lengths_of_the_latents_own_and_fire_as_they_do() -> None:
    parts = Parts(crosscoder(), SIDES, torch.zeros(1, 64), 0)
    z = torch.zeros(3, crosscoder().d_sae)
    z[1, 7], z[2, 7] = 1.0, 2.0
    random = parts.chosen(Difference("random", None, [7]), z)
    own = parts.chosen(Difference("largest", None, [7]), z)
    torch.testing.assert_close(random.norm(dim=-1), own.norm(dim=-1))
    assert torch.cosine_similarity(random[1], own[1]).abs() < 0.6
    other = parts.chosen(Difference("random", None, [7], draw=1), z)
    assert not torch.allclose(random, other)


def test_the_base_model_s_divergence_is_that_of_whole_passes() -> None:
    read = torch.from_numpy(tokens())
    q, p = (logits(lm, read).double().log_softmax(-1) for lm in models())
    kl = (p.exp() * (p - q)).sum(-1)[:, 1:-1]
    assert row("base_model")["kl"] == pytest.approx(float(kl.mean()), rel=1e-4)
    # nothing is put in there, so nothing is recovered
    assert row("base_model")["recovered"] is row("stream_in_base")["recovered"] is None


def prompts() -> AskedPrompts:
    """Beginnings of stories of two kinds, of unlike lengths."""
    lm = models()[0]
    rows = [
        [*block[: 8 + 2 * (number % 3)].tolist(), *[lm.bos_id] * (4 - 2 * (number % 3))]
        for number, block in enumerate(tokens())
    ]
    places = np.array([[7 + 2 * (number % 3), 5] for number in range(len(rows))])
    classes, groups = ["one", "other"] * 3, np.array([0, 0, 1, 1, 2, 2])
    return AskedPrompts(np.array(rows), ["last", "template[-3]"], places, classes, groups)


def test_on_prompts_it_is_the_divergence_at_each_position_of_each_class() -> None:
    wanted = [Difference("none"), Difference("everything"), Difference("base_model")]
    asked = prompts()
    rows = measure_causes(crosscoder(), SIDES, text(), wanted, RESAMPLED, 0, prompts=asked)
    assert dict(rows.schema) == CAUSAL
    on_text = rows.filter(pl.col("of").is_null())
    assert len(on_text) == 3
    assert len(rows) == 3 + 2 * 2 * 3
    q, p = (logits(lm, torch.from_numpy(asked.tokens)).double().log_softmax(-1) for lm in models())
    kl = (p.exp() * (p - q)).sum(-1).numpy()
    for label in ("one", "other"):
        own = [number for number, each in enumerate(asked.classes) if each == label]
        for place, name in enumerate(asked.names):
            mean = np.mean([kl[number, asked.places[number, place]] for number in own])
            by_kind = {
                row["kind"]: row
                for row in rows.filter(of=label, position=name).iter_rows(named=True)
            }
            assert by_kind["base_model"]["kl"] == pytest.approx(mean, rel=1e-4)
            assert by_kind["everything"]["recovered"] == pytest.approx(1, abs=1e-5)
            assert by_kind["none"]["n"] == 3  # groups


def test_prompts_are_drawn_by_class_and_read_at_named_positions() -> None:
    examples = [
        {"text": f"she saw {word}", "label": label}
        for label, words in (("a", "the a and"), ("b", "it was she"))
        for word in words.split()
    ]
    asked = CausalPrompts(examples=examples, speaker="nobody", each=2)
    drawn = drawn_prompts(asked, None, 0)
    assert sorted(drawn.targets) == [0, 0, 1, 1]
    read = read_prompts(models()[0], asked, drawn)
    assert read.names == ["last"]
    assert read.classes == ["a", "a", "b", "b"]
    for row, place, prompt in zip(read.tokens, read.places[:, 0], drawn.prompts, strict=True):
        own = models()[0].tokenize(prompt)
        assert row[: len(own)].tolist() == own
        assert place == len(own) - 1
    again = [*examples, *(examples[0] for _ in range(9))]
    repeated = asked.model_copy(update={"examples": CausalPrompts(examples=again).examples})
    assert drawn_prompts(repeated, None, 0).prompts == drawn.prompts
    of_one = [*examples[:1], *examples[3:]]
    for few in (of_one, [*of_one, examples[0]], [{**each, "group": "x"} for each in examples]):
        lone = CausalPrompts(examples=few, speaker="nobody", each=2)
        with pytest.raises(SaeflowError, match="of the class 'a' are drawn, of 1 groups"):
            drawn_prompts(lone, None, 0)
    twice = asked.model_copy(update={"positions": ["last", "template[-1]"]})
    with pytest.raises(SaeflowError, match="does not exist"):
        read_prompts(models()[0], twice, drawn)


def test_contexts_are_the_strongest_places_of_all_blocks() -> None:
    shown = Shown(contexts=3)
    chosen = shown_latents(latents(), Shown(latents=2))
    contexts = find_contexts(crosscoder(), SIDES, text(), chosen, shown)
    assert dict(contexts.schema) == CONTEXTS
    raised = decoder_tokens(crosscoder(), SIDES, text(), chosen, shown)
    assert dict(raised.schema) == DECODERS
    assert raised.group_by("latent", "side").len()["len"].unique().to_list() == [shown.tokens]
    values = {}
    for passed in text().passes():
        z = crosscoder().encode(passed.x)
        for block in range(len(passed.tokens)):
            rows = torch.from_numpy(passed.block()) == block + passed.first
            values[block + passed.first] = z[rows].amax(0)
    best = torch.stack(list(values.values())).sort(dim=0, descending=True).values
    for latent in chosen:
        own = contexts.filter(latent=latent)["activation"].to_list()
        assert own == pytest.approx([v for v in best[:3, latent].tolist() if v > 0], rel=1e-5)


def test_points_are_what_a_latent_is_where_it_fires_in_either_model() -> None:
    chosen = shown_latents(latents(), Shown(latents=2))
    few = Shown(points=30)
    points = drawn_activations(crosscoder(), SIDES, text(), chosen, few, 0)
    assert dict(points.schema) == SCATTER
    x = torch.cat([passed.x for passed in text().passes()])
    alone = [crosscoder().encode(as_if_both_were(crosscoder(), SIDES, x, side)) for side in (0, 1)]
    values = torch.stack([crosscoder().encode(x), *alone], dim=1)
    for latent in chosen:
        fires = values[:, :, latent].double()
        fires = fires[fires.amax(dim=1) > 0]
        drawn = points.filter(latent=latent).select("activation", "^activation_.*$").to_torch()
        assert len(drawn) == min(few.points, len(fires))
        # each is one of those, to the rounding of other passes
        assert torch.cdist(drawn, fires).amin(dim=1).max() < 1e-4
    # All of them where there are no more.
    every = drawn_activations(crosscoder(), SIDES, text(), chosen[:1], Shown(points=10_000), 0)
    assert len(every) == int((values[:, :, chosen[0]] > 0).any(1).sum())


def test_results_do_not_depend_on_how_many_blocks_a_pass_has(monkeypatch) -> None:
    wanted = [Difference("none"), Difference("latents"), Difference("largest", None, [1, 2, 3])]
    few = text()
    whole = measure_causes(crosscoder(), SIDES, few, wanted, RESAMPLED, 0)
    monkeypatch.setattr("saeflow.analyses.diffing.texts.blocks_per_pass", lambda *_: 2)
    parts = measure_causes(crosscoder(), SIDES, few, wanted, RESAMPLED, 0)
    np.testing.assert_allclose(parts["kl"], whole["kl"], rtol=1e-5, atol=1e-8)


def test_memory_of_causes_does_not_grow_with_the_text(monkeypatch) -> None:
    monkeypatch.setattr("saeflow.analyses.diffing.texts.blocks_per_pass", lambda *_: 2)
    wanted = [Difference("none"), Difference("error"), Difference("largest", None, [1, 2])]
    sizes = []
    for blocks in (2, 6):
        part = text()._replace(tokens=tokens()[:blocks])
        with LargestTensor() as largest:
            measure_causes(crosscoder(), SIDES, part, wanted, RESAMPLED, 0)
        sizes.append(largest.numbers)
    assert sizes[0] == sizes[1] > 0


def test_a_model_that_is_the_same_has_nothing_to_recover() -> None:
    first = text().sources[0]
    same = Text([first, first._replace(name="again")], tokens())
    wanted = [Difference("none"), Difference("everything")]
    rows = measure_causes(crosscoder(), SIDES, same, wanted, RESAMPLED, 0)
    assert rows["kl"].max() == pytest.approx(0, abs=1e-9)
    assert rows["model"].unique().to_list() == ["again"]


def test_sides_are_matched_by_hook_and_others_are_told() -> None:
    places = [("a", "x"), ("a", "y"), ("b", "y"), ("b", "x"), ("c", "x"), ("c", "y")]
    assert sides_by_model(places, "a") == {"b": Sides([0, 1], [3, 2]), "c": Sides([0, 1], [4, 5])}
    with pytest.raises(SaeflowError, match="reads a, b, c and not 'd'"):
        sides_by_model(places, "d")
    with pytest.raises(SaeflowError, match="'a' and 'c' at other hooks"):
        sides_by_model(places[:5], "a")
