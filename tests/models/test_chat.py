"""Chat models: one BOS, messages through the template, texts that end, tokens that are never made
of text again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from steered import HOOK, tiny_lm, tiny_sae, unit_rows
from tiny_models import CHAT_TEMPLATE, WORDS, chat_language_model, chat_tokenizer, tiny_model
from transformers import GenerationConfig
from typer.testing import CliRunner

from saeflow.analyses.effects.measure import Experiment, measure_baseline, measure_block, prepare
from saeflow.analyses.effects.scale import prepare_evaluation
from saeflow.analyses.effects.settings import Measurement, Scale
from saeflow.analyses.steering.completions import complete
from saeflow.analyses.steering.divergence import divergences
from saeflow.analyses.steering.io import SteeringVector, save_vector
from saeflow.analyses.steering.settings import Completions
from saeflow.cli.main import app
from saeflow.config.goal import Goal
from saeflow.config.sections import Judge, Message, Sampling
from saeflow.corpora import tales
from saeflow.decoding.edits import Edit
from saeflow.decoding.ending import lengths
from saeflow.decoding.generation import Memory, generate
from saeflow.decoding.recording import Recording
from saeflow.errors import SaeflowError
from saeflow.judging.losses import model_losses
from saeflow.judging.scores import completions_in, score_completions
from saeflow.models.chat import (
    continuation_text,
    end_ids,
    places,
    prompt_text,
    shared_end,
    template_length,
)
from saeflow.models.evaluation import block_losses
from saeflow.models.families import FAMILIES
from saeflow.models.hooks import attach
from saeflow.models.language_model import LanguageModel, without_progress_bars
from saeflow.models.running import capture
from saeflow.saes.subject import Subject
from saeflow.seeds import row_keys

BOS, EOS, START, STOP = 0, 1, 3, 4
ASKED = [Message(role="system", content="I sat"), Message(role="user", content="the cat ran")]
WRITTEN = "<bos> <start> user I think <stop> <start> assistant"
NEW_TOKENS = 40
NEVER = CHAT_TEMPLATE.replace("' <stop> '", "' '")
AT_THE_END = CHAT_TEMPLATE.replace("' <stop> '", "eos_token")
BOS_LEFT_OUT = CHAT_TEMPLATE.replace("{{ bos_token }}", "")
DATED = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}{{ strftime_now('%d %b %Y') }}")
FUSSY = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system prompt') }}{% endif %}"
    + CHAT_TEMPLATE
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return chat_language_model()


def wordless(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the tokenizer reads no text."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("text was tokenised")

    monkeypatch.setattr(type(lm.tokenizer), "__call__", refuse)


def completions(
    lm: LanguageModel, rows: int = 64, scales: tuple[float, ...] = (0.0, 2.0)
) -> pl.DataFrame:
    settings = Completions(
        prompts=["I think", WRITTEN, ASKED], samples=6, new_tokens=NEW_TOKENS, scales=list(scales)
    )
    return complete(lm, HOOK, unit_rows(1)[0], scales, settings, 0, "love", "caa", rows)


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, BOS_LEFT_OUT])
@pytest.mark.parametrize("prompt", ["", "I think", "<bos> I think", "<bos><bos>", WRITTEN, ASKED])
def test_every_prompt_opens_with_one_bos(prompt: str | list[Message], template: str) -> None:
    lm = chat_language_model(template=template)
    tokens = lm.tokenize(prompt_text(prompt, lm.tokenizer))
    assert tokens[0] == BOS
    assert tokens.count(BOS) == 1


def test_messages_are_written_by_the_model_s_own_template(lm: LanguageModel) -> None:
    tokens = lm.tokenize(prompt_text(ASKED, lm.tokenizer))
    messages = [message.model_dump() for message in ASKED]
    assert (
        tokens
        == lm.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    )
    assert tokens[-2:] == [START, lm.tokenizer.convert_tokens_to_ids("assistant")]


def test_a_message_of_the_assistant_is_gone_on_with(lm: LanguageModel) -> None:
    text = prompt_text([*ASKED, Message(role="assistant", content="a mat")], lm.tokenizer)
    assert text.endswith("<start> assistant a mat")


def test_a_template_that_writes_the_date_writes_the_same_every_day() -> None:
    assert "26 Jul 2024" in prompt_text(ASKED, chat_tokenizer(DATED))


@pytest.mark.parametrize(
    ("template", "reason"), [(None, "has no chat template"), (FUSSY, "no system prompt")]
)
def test_messages_that_cannot_be_written_are_refused_in_one_sentence(
    template: str | None, reason: str
) -> None:
    with pytest.raises(SaeflowError, match=rf"^prompts: .*{reason}[^\n]*$"):
        prompt_text(ASKED, chat_tokenizer(template))


def test_a_text_is_split_at_its_prompt_whatever_the_tokenizer_writes_otherwise() -> None:
    tokenizer = chat_tokenizer()
    prompt = [BOS, *tokenizer("I  THINK the Moon", add_special_tokens=False)["input_ids"]]
    assert "I  THINK the Moon" not in tokenizer.decode(prompt)
    assert (
        continuation_text(
            tokenizer, prompt, tokenizer("cat sat", add_special_tokens=False)["input_ids"]
        )
        == " cat sat"
    )
    tale = tales.tokenizer()
    words = tale("I think , “ she said . ”", add_special_tokens=False)["input_ids"]
    whole = tale.decode(words)
    parts = [
        (tale.decode(words[:stop]), continuation_text(tale, words[:stop], words[stop:]))
        for stop in range(8)
    ]
    assert whole == "I think, “she said.”"
    assert [start + rest for start, rest in parts] == [whole] * 8


# --- positions ------------------------------------------------------------------------------------


def test_positions_of_the_template_are_its_own_tokens_behind_what_the_user_says() -> None:
    tokenizer = chat_tokenizer()
    assert template_length(tokenizer) == 3  # <stop> <start> assistant
    for said in ("the cat ran", "a dog"):
        asked = [Message(role="user", content=said)]
        tokens = chat_language_model().tokenize(prompt_text(asked, tokenizer))
        behind = [tokens[places(f"template[-{n}]", len(tokens), 3)[0]] for n in (3, 2, 1)]
        assert behind == [STOP, START, tokenizer.convert_tokens_to_ids("assistant")]
        assert places("last", len(tokens), 3) == places("template[-1]", len(tokens), 3)
        assert places("all", len(tokens), 3) == list(range(1, len(tokens)))


@pytest.mark.parametrize("template", [None, "{{ raise_exception('never') }}"])
def test_a_position_that_no_template_writes_is_refused_in_a_sentence(template: str | None) -> None:
    length = template_length(chat_tokenizer(template))
    assert length == 0
    with pytest.raises(SaeflowError, match=r"^positions: 'template\[-1\]' does not exist; .*last$"):
        places("template[-1]", 8, length)


def test_texts_have_the_words_in_common_that_all_of_them_end_in() -> None:
    assert shared_end([[0, 5, 6, 7], [0, 4, 6, 7], [6, 7]]) == 2
    assert shared_end([[0, 1], [0, 2]]) == 0


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "named", "ends"),
    [
        (None, None, (EOS,)),
        (None, [7, 9], (EOS, 7, 9)),
        (CHAT_TEMPLATE, 7, (EOS, STOP, 7)),
        (AT_THE_END, None, (EOS,)),
        (NEVER, None, (EOS,)),
        ("{{ raise_exception('never') }}", EOS, (EOS,)),
    ],
)
def test_a_text_ends_where_config_tokenizer_or_template_end_it(
    template: str | None, named: int | list[int] | None, ends: tuple[int, ...]
) -> None:
    assert end_ids(chat_tokenizer(template), GenerationConfig(eos_token_id=named)) == ends


def test_tales_are_never_ended() -> None:
    model = tiny_model("llama", eos_token_id=None)
    assert LanguageModel(model, tales.tokenizer(), FAMILIES["llama"]).end_ids == ()


def test_a_greedy_text_ends_where_that_of_transformers_does(lm: LanguageModel) -> None:
    prompts = torch.tensor([[BOS, *pair] for pair in np.ndindex(8, 8)])
    ours = generate(
        lm,
        prompts,
        None,
        HOOK,
        Sampling(temperature=0),
        row_keys(0, "k", [(i,) for i in range(64)]),
        20,
    )
    plain = tiny_model("llama")
    theirs = plain.generate(
        prompts, do_sample=False, max_new_tokens=20, eos_token_id=[EOS, STOP], pad_token_id=60
    )
    counts = lengths(ours, lm.end_ids)
    assert 0 < (counts < 20).sum() < 64
    for row, count, their in zip(
        ours.tolist(), counts.tolist(), theirs[:, 3:].tolist(), strict=True
    ):
        their += [60] * (20 - len(their))
        assert row[: count + 1] == their[: count + 1]
        assert set(their[count + 1 :]) <= {60}


def test_texts_are_the_same_to_the_token_in_any_batch_and_by_a_recorded_step(
    lm: LanguageModel,
) -> None:
    table = completions(lm)
    assert table.equals(completions(lm, rows=6))
    prompts, edit = (
        torch.tensor([[BOS, 5, 7], [BOS, 9, 6]]),
        Edit("add", unit_rows(2), torch.full((2,), 3.0)),
    )
    keys = row_keys(0, "test", [(index,) for index in range(12)])
    drawn = [
        generate(
            lm,
            prompts,
            edit,
            HOOK,
            Sampling(),
            keys,
            NEW_TOKENS,
            memory=Memory(recording=recording),
        )
        for recording in (None, Recording())
    ]
    assert torch.equal(*drawn)


def test_what_follows_the_end_is_no_text(lm: LanguageModel) -> None:
    table = completions(lm)
    assert 0 < table["ended"].sum() < len(table)
    for row in table.iter_rows(named=True):
        assert not set(row["continuation_ids"]) & set(lm.end_ids)
        assert (len(row["continuation_ids"]) < NEW_TOKENS) == row["ended"]
        assert row["text"] == row["prompt"] + row["continuation"]
        assert (
            row["continuation"].split()
            == lm.tokenizer.decode(row["continuation_ids"], skip_special_tokens=True).split()
        )
        assert row["prompt_ids"] == lm.tokenize(row["prompt"])


def test_generation_stops_when_all_texts_have_ended() -> None:
    model = tiny_model("llama").requires_grad_(False)
    model.generation_config.eos_token_id = list(range(5, 64))
    lm, offsets = LanguageModel(model, chat_tokenizer(), FAMILIES["llama"]), []
    keys = row_keys(0, "k", [(i,) for i in range(4)])
    read = lambda resid, offset: offsets.append(offset)  # noqa: E731
    tokens = generate(lm, torch.tensor([[BOS]]), None, HOOK, Sampling(), keys, NEW_TOKENS, read)
    assert tokens.shape == (4, NEW_TOKENS)
    assert len(offsets) < 10


# --- judges, losses, divergence -------------------------------------------------------------------


@pytest.mark.parametrize("long_prompt", [1, 1000], ids=["prompts run once", "whole passes"])
def test_losses_and_divergences_read_the_tokens_drawn_and_none_behind_the_end(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, long_prompt: int
) -> None:
    monkeypatch.setattr("saeflow.judging.losses.LONG_PROMPT", long_prompt)
    table, vector = completions(lm), unit_rows(1)[0]
    wordless(lm, monkeypatch)
    losses = model_losses(lm)(completions_in(table))
    measured = divergences(lm, HOOK, vector, table)["kl"].to_list()
    with torch.no_grad():
        for row, loss, kl in zip(table.iter_rows(named=True), losses, measured, strict=True):
            tokens, start = (
                torch.tensor([row["prompt_ids"] + row["continuation_ids"]]),
                len(row["prompt_ids"]),
            )
            plain = lm.model(tokens).logits[0].double().log_softmax(-1)
            with attach(lm, [(HOOK, lambda resid, scale=row["scale"]: resid + scale * vector)]):
                steered = lm.model(tokens).logits[0].double().log_softmax(-1)
            each = (steered.exp() * (steered - plain)).sum(-1)
            stop = (
                len(each) if row["ended"] else len(each) - 1
            )  # the place at which it ended counts
            assert kl == pytest.approx(each[start - 1 : stop].mean().item(), rel=1e-4, abs=1e-7)
            if row["continuation_ids"]:
                drawn = -plain[start - 1 : -1].gather(1, tokens[0, start:, None]).mean().item()
                assert loss == pytest.approx(drawn, rel=1e-4)


def test_every_completion_of_a_chat_model_is_scored(lm: LanguageModel) -> None:
    goal = Goal(
        title="t", criterion="c", positive=["a", "b"], negative=["c", "d"], words=list(WORDS[:8])
    )
    table = completions(lm)
    scores = score_completions(table, goal, Judge(kind="lexical"), 0, model_losses(lm))
    assert scores["score"].null_count() == 0
    behaviour = scores.filter(criterion="behaviour")["score"]
    assert behaviour.n_unique() > 2
    worded = table["continuation"].str.strip_chars().str.len_chars() > 0
    assert (behaviour.filter(~worded) == 0).all()


def test_a_chat_model_is_asked_at_the_terminal_and_its_answers_alone_are_shown(
    lm: LanguageModel, tmp_path: Path
) -> None:
    with without_progress_bars():
        tiny_model("llama").save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    vector = tmp_path / "vector.safetensors"
    save_vector(
        vector,
        SteeringVector(
            unit_rows(1)[0], {"hook": HOOK, "goal": "love", "method": "caa", "targets": {}}
        ),
    )
    options = [
        "--vector",
        str(vector),
        "--scale",
        "3",
        "--model",
        str(tmp_path / "model"),
        "--chat",
    ]
    steered = CliRunner().invoke(app, ["steer", "the cat ran", *options])
    assert steered.exit_code == 0, steered.output
    assert "unsteered" in steered.output
    assert "<start>" not in steered.output


# --- effects --------------------------------------------------------------------------------------


def experiment(lm: LanguageModel, positions: str, rows: int = 64) -> Experiment:
    settings = Measurement(
        prompts=["I think", ASKED], samples=5, baseline_samples=8, new_tokens=20,
        positions=positions,
        scale=Scale(rule="fixed", value=3.0, tokens=64),
    )  # fmt: skip
    tokens = np.concatenate(
        [np.zeros((8, 1)), np.random.default_rng(0).integers(5, 20, (8, 15))], 1
    ).astype(np.int32)
    return prepare(Subject(lm, tiny_sae(), HOOK, 3), settings, tokens, 10.0, batch_rows=rows)


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_effects_are_read_before_the_end_of_each_rollout_and_each_counts_once(
    lm: LanguageModel, positions: str
) -> None:
    exp = experiment(lm, positions)
    base, means, ended = measure_baseline(exp), [], 0
    for prompt in exp.settings.prompts:
        text = prompt_text(prompt, lm.tokenizer)
        tokens = lm.tokenize(text)
        keys = row_keys(3, "effects", [(text, 0, sample) for sample in range(8)])
        drawn = generate(lm, torch.tensor([tokens]), None, HOOK, exp.settings.sampling, keys, 20)
        for row, length in zip(drawn.tolist(), lengths(drawn, lm.end_ids).tolist(), strict=True):
            ended += length < 20
            text_read = torch.tensor([tokens + row[: max(length, 1)]])
            first = len(tokens) if positions == "generated" else 1
            resid = capture(lm, text_read, [HOOK])[HOOK][0, first:]
            means.append(exp.subject.sae.encode(resid).double().mean(0))
    assert 0 < ended < 16
    torch.testing.assert_close(base.mean, torch.stack(means).mean(0), atol=1e-6, rtol=1e-5)


def test_a_vector_has_the_same_effects_to_the_bit_beside_texts_that_end_sooner(
    lm: LanguageModel,
) -> None:
    exp = experiment(lm, "generated")
    base, vectors = measure_baseline(exp), unit_rows(4)
    sooner = torch.cat([lm.model.lm_head.weight[[EOS] * 3].float(), vectors[3:]])
    block, beside = (measure_block(exp, several, range(4), base) for several in (vectors, sooner))
    assert torch.equal(block.effects[3], beside.effects[3])


# --- logits that are not numbers ------------------------------------------------------------------


def overflowing(dtype: torch.dtype, factor: float) -> LanguageModel:
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.model.layers[2].mlp.down_proj.weight.mul_(factor)
    return replace(lm, model=lm.model.to(dtype))


def drawn_with(lm: LanguageModel, scales: list[float]) -> torch.Tensor:
    edit = Edit("add", unit_rows(2), torch.tensor(scales))
    keys = row_keys(0, "k", [(i,) for i in range(4)])
    return generate(lm, torch.tensor([[0, 5], [0, 9]]), edit, HOOK, Sampling(), keys, 6)


def test_logits_that_are_not_numbers_are_told_with_dtype_and_scale() -> None:
    broken, sound = overflowing(torch.float16, 3e6), overflowing(torch.float16, 1.0)
    advice = "is NaN or infinite; set model.dtype to bfloat16 or float32"
    with pytest.raises(
        SaeflowError, match=rf"^steering: a logit of llama in float16, unsteered, {advice}$"
    ):
        drawn_with(broken, [0.0, 1.0])
    with pytest.raises(
        SaeflowError, match=rf"in float16, steered with scale -1e.08, {advice}, or lower the scale$"
    ):
        drawn_with(sound, [0.0, -1e8])
    assert drawn_with(overflowing(torch.float32, 3e6), [0.0, -1e8]).shape == (4, 6)


def test_losses_and_divergences_that_are_not_numbers_are_told_with_the_dtype() -> None:
    broken, sound = overflowing(torch.float16, 3e6), overflowing(torch.float16, 1.0)
    text = np.random.default_rng(0).integers(3, 20, (8, 16)).astype(np.int32)
    with pytest.raises(
        SaeflowError, match="models: the loss of llama in float16, unsteered, is NaN"
    ):
        block_losses(broken, text)
    with pytest.raises(
        SaeflowError,
        match="effects: the loss on the evaluation text of llama in float16, unsteered,",
    ):
        prepare_evaluation(broken, HOOK, torch.from_numpy(text).long(), Scale(tokens=64))
    table = completions(chat_language_model(), scales=(0.0, 1e8))
    with pytest.raises(
        SaeflowError, match=r"divergence: .* of llama in float16, steered with scale 1e.08, is NaN"
    ):
        divergences(sound, HOOK, unit_rows(1)[0], table)


def test_logits_behind_the_end_of_a_text_are_nobody_s_concern() -> None:
    from saeflow.decoding.ending import Ending

    lm = chat_language_model()
    ending, number = Ending(lm, 2), torch.zeros(2, 64)
    ending.see(number)
    ending.of(torch.tensor([STOP, 7]))
    ending.see(torch.stack([number[0] + float("nan"), number[1]]))
    ending.check(None)
    ending.see(number + float("inf"))
    with pytest.raises(SaeflowError, match="is NaN or infinite"):
        ending.check(None)
