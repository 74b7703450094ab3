"""Families against TransformerBridge: the same names hold the same tensors, and the same edits give
the same logits."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from family_models import (
    CONFIGS,
    N_LAYERS,
    multimodal_model,
    save_family_model,
    save_multimodal,
)
from tiny_models import tiny_tokenizer, tiny_tokens
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from saeflow.config.hooks import NOT_IN_THE_STREAM, OF_A_MODULE, SITES, SYNONYMS
from saeflow.config.model_files import context_in, vocabulary_in
from saeflow.config.sections import Sampling
from saeflow.decoding.edits import Edit
from saeflow.decoding.generation import generate
from saeflow.errors import SaeflowError
from saeflow.models.adapters import adapted_family, family_of
from saeflow.models.families import FAMILIES
from saeflow.models.hooks import attach, check_distinct, check_hook
from saeflow.models.language_model import LanguageModel, load_model, opening_token
from saeflow.models.norms import centres, gain
from saeflow.models.running import (
    capture,
    final_states,
    logits,
    next_token_losses,
    run_prefix,
    run_suffix,
    unembed,
)
from saeflow.models.unembedding import final_norm, unembedding
from saeflow.seeds import row_keys

MULTIMODAL = "gemma3 (the text's model of a multimodal checkpoint)"
EDITED = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
ROOT = Path(__file__).parents[2]
AROUND_NORMS = ("hook_resid_mid", "ln1.hook_normalized", "ln2.hook_normalized")


class Case(NamedTuple):
    """A family's model, and what TransformerBridge says of it."""

    lm: LanguageModel
    names: list[str]
    ours: dict[str, Tensor]
    theirs: dict[str, Tensor]
    hooks: set[str]
    logits: Tensor
    edited: dict[str, Tensor]


def lacks_around_norms(name: str) -> tuple[bool, bool, bool]:
    """Of `AROUND_NORMS`, by how the models of a family are known to be built."""
    behind = name in {"olmo2", "olmo3", "exaone4"}
    shared = name in {"phi", "gptj", "codegen", "falcon", "cohere", "cohere2"}
    return shared or name == "gpt_neox", behind, shared or behind


def vector() -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(1))


def every_hook(lm: LanguageModel) -> list[str]:
    return [f"blocks.{layer}.{site}" for layer in range(N_LAYERS) for site in lm.family.sites]


def exists(lm: LanguageModel, hook: str) -> bool:
    try:
        return bool(check_hook(lm, hook))
    except SaeflowError:
        return False


def bridge_of(directory: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(directory), device="cpu")


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Every family's model is made and run once."""

    @cache
    def make(name: str) -> Case:
        directory = tmp_path_factory.mktemp("model") / "model"
        text = directory
        if name == MULTIMODAL:
            save_multimodal(directory, text := directory.with_name("text"))
        else:
            save_family_model(directory, name)
        lm, tokens = load_model(directory), tiny_tokens()
        names = [hook for hook in every_hook(lm) if exists(lm, hook)]
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setenv("HF_HUB_OFFLINE", "1")
            bridge = bridge_of(text)
            hooks = set(bridge.hook_dict)
            whole, theirs = bridge.run_with_cache(
                tokens, names_filter=[name for name in names if name in hooks]
            )
            edited = {
                name: bridge.run_with_hooks(
                    tokens, fwd_hooks=[(name, lambda x, hook: x + 2 * vector())]
                )
                for name in (f"blocks.1.{site}" for site in EDITED)
                if name in hooks
            }
        ours = capture(lm, tokens, names)
        return Case(lm, names, ours, dict(theirs), hooks, whole, edited)

    return make


ALL = (*CONFIGS, MULTIMODAL)


def assert_near(ours: Tensor, theirs: Tensor, what: str) -> None:
    size = max(1.0, theirs.abs().max().item())
    torch.testing.assert_close(
        ours,
        theirs.reshape(ours.shape),
        atol=2e-6 * size,
        rtol=0,
        msg=lambda text: f"{what}: {text}",
    )


@pytest.mark.parametrize("name", ALL)
def test_every_site_holds_the_tensor_of_that_name_of_transformer_lens(name, case_of):
    case = case_of(name)
    assert set(case.names) == case.hooks & set(every_hook(case.lm))
    for hook in case.names:
        assert_near(case.ours[hook], case.theirs[hook], hook)
    assert_near(logits(case.lm, tiny_tokens()), case.logits, "logits")


@pytest.mark.parametrize("name", ALL)
def test_edits_at_the_residual_stream_and_what_is_added_to_it_give_the_same_logits(name, case_of):
    case = case_of(name)
    assert {"blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"} <= case.edited.keys()
    for hook, theirs in case.edited.items():
        with attach(case.lm, [(hook, lambda x: x + 2 * vector())]):
            ours = logits(case.lm, tiny_tokens())
        assert not torch.allclose(ours, case.logits, atol=1e-2), hook
        assert_near(ours, theirs, hook)


@pytest.mark.parametrize("name", ALL)
def test_sites_that_a_family_lacks_are_those_that_the_bridge_lacks_and_are_told_with_the_reason(
    name, case_of
):
    case = case_of(name)
    hooks = {hook.split(".", 2)[2] for hook in case.hooks if re.match(r"blocks\.\d+\.", hook)}
    lacking = set(SITES) - hooks
    assert lacking == set(SITES) - set(case.lm.family.sites) == set(case.lm.family.absent)
    if name not in ("mamba", MULTIMODAL):
        facts = lacks_around_norms(name)
        assert lacking == {site for site, lacks in zip(AROUND_NORMS, facts, strict=True) if lacks}
    for site in lacking:
        reason = re.escape(case.lm.family.absent[site])
        with pytest.raises(SaeflowError, match=rf"model \({reason}\); its sites are "):
            check_hook(case.lm, f"blocks.0.{site}")


@pytest.mark.parametrize("name", ALL)
def test_the_stream_after_a_layer_leads_to_the_same_logits_without_the_layers_below(name, case_of):
    lm, tokens = case_of(name).lm, tiny_tokens()
    whole = logits(lm, tokens)
    assert_near(run_suffix(lm, run_prefix(lm, tokens, 0), 0), whole, "suffix")
    states = final_states(lm, tokens)
    assert_near(unembed(lm, states[0]), whole[0], "unembedding")
    expected = cross_entropy(whole[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    assert_near(next_token_losses(lm, states, tokens), expected, "losses")


@pytest.mark.parametrize("name", ALL)
def test_steered_text_is_drawn_with_a_cache_as_without(name, case_of):
    lm, hook = case_of(name).lm, "blocks.0.hook_resid_post"
    if lm.keeps_states:
        assert name in ("mamba", "lfm2", "qwen3_next")
        with pytest.raises(SaeflowError, match=f"steering: {name} models keep states in place of"):
            generate(lm, tiny_tokens(1, 6), None, hook, Sampling(), row_keys(0, "", [(0,)]), 6)
        return
    text, unit = tiny_tokens(1, 6), vector() / vector().norm()
    edit = Edit("add", unit[None], torch.tensor([10.0]))
    keys = row_keys(0, "test", [(0,)])
    drawn = generate(lm, text, edit, hook, Sampling(temperature=0.0), keys, 6)[0].tolist()
    with attach(lm, [(hook, lambda x: x + 10 * unit)]):
        for _ in range(6):
            text = torch.cat([text, logits(lm, text)[:, -1:].argmax(-1)], 1)
    ends = [place + 1 for place, token in enumerate(drawn) if token in lm.end_ids]
    length = min([6, *ends])
    assert drawn[:length] == text[0, 6 : 6 + length].tolist()


def test_text_is_drawn_in_bfloat16_from_a_model_as_transformers_has_it(tmp_path):
    lm = load_model(save_family_model(tmp_path / "model", "phi"), dtype="bfloat16")
    keys = row_keys(0, "test", [(0,), (1,)])
    drawn = generate(lm, tiny_tokens(1, 6), None, "blocks.0.hook_resid_post", Sampling(), keys, 6)
    assert drawn.shape == (2, 6)


@pytest.mark.parametrize("name", ALL)
def test_the_final_norm_is_what_its_module_does(name, case_of):
    lm = case_of(name).lm
    norm, x = final_norm(lm), case_of(name).ours["blocks.1.hook_resid_post"]
    centred = x - x.mean(-1, keepdim=True) if centres(norm, lm.d_model) else x
    unit = centred / centred.square().mean(-1, keepdim=True).sqrt()
    bias = getattr(norm, "bias", None)
    expected = unit * gain(norm, lm.d_model) + (0 if bias is None else bias)
    torch.testing.assert_close(norm(x), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_the_unembedding_is_what_final_states_add_to_the_logits(name, case_of):
    lm = case_of(name).lm
    states = final_states(lm, tiny_tokens())[0]
    added = unembed(lm, states)
    if cap := getattr(lm.model.config, "final_logit_softcapping", None):
        added = cap * torch.atanh(added / cap)
    added = added - unembed(lm, torch.zeros_like(states))  # a bias, in some families
    rows = unembedding(lm, range(lm.d_vocab), [])
    torch.testing.assert_close(states @ rows.T, added, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name in FAMILIES])
def test_the_own_table_says_what_transformer_lens_says(name):
    config = CONFIG_MAPPING[name](**CONFIGS[name])
    ours, theirs = FAMILIES[name], adapted_family(config)
    assert dict(ours.sites) == dict(theirs.sites)
    assert (ours.model_class, ours.layers, ours.final_norm, set(ours.absent)) == (
        theirs.model_class,
        theirs.layers,
        theirs.final_norm,
        set(theirs.absent),
    )


@pytest.mark.parametrize("synonym", SYNONYMS)
def test_names_of_later_versions_hold_the_same_tensor_there_and_here(
    synonym, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    directory = save_family_model(tmp_path / "model", "phi")
    hook, tokens = f"blocks.1.{synonym}", tiny_tokens()
    _, theirs = bridge_of(directory).run_with_cache(tokens, names_filter=[hook])
    lm = load_model(directory)
    ours = capture(lm, tokens, [hook])[hook]
    assert_near(ours, theirs[hook], hook)
    assert torch.equal(ours, capture(lm, tokens, [f"blocks.1.{SYNONYMS[synonym]}"]).popitem()[1])


def test_what_a_module_gives_is_what_is_added_but_behind_a_norm_or_a_factor(case_of):
    def same(name: str, site: str, added: str) -> bool:
        ours = case_of(name).ours
        return torch.equal(ours[f"blocks.1.{site}"], ours[f"blocks.1.{added}"])

    for name in ("llama", "gpt2", "phi", "mixtral"):
        assert same(name, "mlp.hook_out", "hook_mlp_out")
        assert same(name, "attn.hook_out", "hook_attn_out")
        assert case_of(name).lm.family.first_name("mlp.hook_out") == "hook_mlp_out"
    for name in ("gemma2", "gemma3_text", "olmo2", "granite"):
        assert not same(name, "mlp.hook_out", "hook_mlp_out")
        assert case_of(name).lm.family.first_name("mlp.hook_out") == "mlp.hook_out"


def test_what_the_mlp_reads_is_behind_the_weights_of_the_norm_and_normalized_before(case_of):
    for name in ("llama", "gemma2", "gpt2", "bloom"):
        case = case_of(name)
        before, behind = (
            case.ours[f"blocks.1.{site}"] for site in ("ln2.hook_normalized", "mlp.hook_in")
        )
        torch.testing.assert_close(
            before.square().mean(-1), torch.ones(before.shape[:-1]), atol=1e-3, rtol=0
        )
        norm = case.lm.blocks[1].get_submodule(case.lm.family.sites["ln2.hook_normalized"].module)
        bias = getattr(norm, "bias", None)
        torch.testing.assert_close(
            behind, before * gain(norm, 32) + (0 if bias is None else bias), atol=1e-5, rtol=0
        )


def test_what_is_added_to_the_stream_is_known_by_family(case_of):
    for name in CONFIGS:
        family, ours = case_of(name).lm.family, case_of(name).ours
        if case_of(name).lm.keeps_states:  # whose layers differ
            continue
        for site in family.sites:
            assert not (family.writes_stream(site) and site in NOT_IN_THE_STREAM)
        for site, added in (("attn.hook_out", "hook_attn_out"), ("mlp.hook_out", "hook_mlp_out")):
            if site not in family.sites:
                continue
            tensor = ours[f"blocks.1.{site}"]
            parts = [ours[f"blocks.1.{added}"], ours["blocks.1.hook_resid_post"]]
            parts += [
                ours[f"blocks.1.{middle}"]
                for middle in ("hook_resid_mid",)
                if middle in family.sites
            ]
            shares = [np.corrcoef(tensor.flatten(), part.flatten())[0, 1] for part in parts]
            assert family.writes_stream(site) == (max(shares) > 1 - 1e-6), (name, site)


def test_the_text_model_of_a_multimodal_checkpoint_gives_the_logits_of_the_whole(case_of):
    with torch.no_grad():
        whole = multimodal_model()(tiny_tokens()).logits
    assert_near(logits(case_of(MULTIMODAL).lm, tiny_tokens()), whole, "logits")
    assert not any("vision" in name for name, _ in case_of(MULTIMODAL).lm.model.named_modules())


def test_what_files_of_a_multimodal_checkpoint_say_is_what_they_say_of_the_text(tmp_path):
    save_multimodal(tmp_path / "whole", tmp_path / "text")
    for read in (vocabulary_in, context_in, opening_token):
        assert read(tmp_path / "whole") == read(tmp_path / "text")


def test_norms_without_weights_are_norms_too(case_of):
    norm = final_norm(case_of("olmo").lm)
    assert not list(norm.parameters())
    assert gain(norm, 32).tolist() == [1.0] * 32
    assert centres(norm, 32)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("bert", "have no residual stream that goes from layer to layer of a decoder"),
        ("t5", "are no decoders of text that transformers knows"),
        ("ctrl", "are known neither here nor to TransformerLens's adapters"),
    ],
)
def test_models_without_places_are_refused_in_one_sentence(model_type, reason):
    with pytest.raises(SaeflowError, match=f"^models: models of type '{model_type}' .*{reason}"):
        adapted_family(CONFIG_MAPPING[model_type]())


def test_an_opt_whose_norms_stand_behind_has_none_of_the_sites_around_norms(tmp_path):
    config = CONFIG_MAPPING["opt"](**CONFIGS["opt"], do_layer_norm_before=False)
    family = adapted_family(config)
    assert set(family.absent) == set(AROUND_NORMS)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    lm = LanguageModel(model, tiny_tokenizer(), family)
    layer, tokens = lm.blocks[1], tiny_tokens()
    sites = ("hook_resid_pre", "hook_attn_out", "mlp.hook_in", "hook_mlp_out", "hook_resid_post")
    pre, attention, read, mlp, post = capture(lm, tokens, [f"blocks.1.{s}" for s in sites]).values()
    torch.testing.assert_close(layer.self_attn_layer_norm(pre + attention), read)
    torch.testing.assert_close(layer.final_layer_norm(read + mlp), post)
    with pytest.raises(SaeflowError, match="has no norm before its unembedding; leave final_norm"):
        final_norm(lm)


def test_a_module_that_some_layers_lack_is_told_by_layer(case_of):
    lm = case_of("phi").lm
    attention = lm.blocks[0].self_attn
    try:
        del lm.blocks[0].self_attn
        with pytest.raises(SaeflowError, match="layer 0 has no self_attn; name another layer"):
            check_hook(lm, "blocks.0.hook_attn_out")
        check_hook(lm, "blocks.1.hook_attn_out")
    finally:
        lm.blocks[0].self_attn = attention


def families_as_a_table() -> str:
    """What the docs say of every family, those that are alike in one row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name in CONFIGS:
        kind, _, particular = name.partition(" ")
        family = family_of(CONFIG_MAPPING[kind](**CONFIGS[name]))
        lacking = [site for site in SITES if site not in family.sites]
        apart = [
            site
            for site, added in OF_A_MODULE.items()
            if site in family.sites and family.first_name(site) != added
        ]
        cells = (code(lacking) or "–", code(apart) or "–")
        rows.setdefault(cells, []).append(f"{kind} {particular}".strip())
    head = "| families | lack | what the module gives is not what is added |\n|---|---|---|"
    body = (f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in rows.items())
    return "\n".join([head, *body])


def code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def test_the_docs_say_of_every_family_what_it_has():
    text = (ROOT / "docs" / "howto-own-model.md").read_text()
    opening, end = "<!-- families: made from the test -->\n", "\n<!-- end of families -->"
    assert text.partition(opening)[2].partition(end)[0] == families_as_a_table()


def test_a_tensor_of_two_names_is_refused_where_it_is_one(case_of):
    both = ["blocks.1.mlp.hook_out", "blocks.1.hook_mlp_out"]
    with pytest.raises(SaeflowError, match="are one tensor in a phi model; call it by one"):
        check_distinct(case_of("phi").lm, both)
    with pytest.raises(SaeflowError, match="are one tensor in a olmo2 model; call it by one"):
        check_distinct(case_of("olmo2").lm, ["blocks.1.hook_resid_mid", "blocks.1.mlp.hook_in"])
    check_distinct(case_of("gemma2").lm, both)
    check_distinct(case_of("phi").lm, [both[0], "blocks.0.mlp.hook_out", "blocks.0.hook_out"])


def test_layers_that_read_the_tokens_again_cannot_go_on_from_the_stream_alone():
    config = CONFIG_MAPPING["gemma4_text"](
        **CONFIGS["gemma3_text"],
        vocab_size=64,
        vocab_size_per_layer_input=64,
        hidden_size_per_layer_input=8,
        pad_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    lm = LanguageModel(model, tiny_tokenizer(), family_of(model.config))
    resid = run_prefix(lm, tiny_tokens(), 0)
    with pytest.raises(SaeflowError, match="gemma4_text models cannot go on from the residual"):
        run_suffix(lm, resid, 0)
