"""A transformer whose residual stream tells of every token which one stands before it, and latents
that fire on one token behind another."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from saeflow.models.families import FAMILIES
from saeflow.models.language_model import LanguageModel
from saeflow.saes.sae import SAE

HOOK = "blocks.0.hook_resid_post"
LONGEST = 16


def bigram_model(words: int, seed: int = 0) -> LanguageModel:
    """A GPT-2 of one layer, whose head attends to the token before; token 0 is BOS, words follow.

    The stream holds which token it is, which position, and which token stands before it, one number
    each. What is predicted are random logits of both tokens.
    """
    d_vocab = words + 1
    width = 2 * d_vocab + LONGEST
    config = GPT2Config(
        vocab_size=d_vocab,
        n_positions=LONGEST,
        n_embd=width,
        n_layer=1,
        n_head=1,
        n_inner=4,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    own, before = slice(0, d_vocab), slice(d_vocab, 2 * d_vocab)
    place = slice(2 * d_vocab, width)
    block = model.transformer.h[0]
    size = (width / 2 - 1) ** -0.5  # what a norm makes of a 1, where two numbers of all are 1
    for parameter in block.parameters():
        parameter.zero_()
    block.ln_1.weight.fill_(size)
    model.transformer.ln_f.weight.fill_(1.0)
    model.transformer.wte.weight.zero_()
    model.transformer.wte.weight[:, own] = torch.eye(d_vocab)
    model.transformer.wpe.weight.zero_()
    model.transformer.wpe.weight[:, place] = torch.eye(LONGEST)
    query, key, value = block.attn.c_attn.weight.view(width, 3, width).unbind(1)
    strength = 30 * width**0.25
    query[place, place] = strength * torch.eye(LONGEST)
    key[place, place] = strength * torch.eye(LONGEST).roll(1, 1)
    value[own, before] = torch.eye(d_vocab)
    block.attn.c_proj.weight.copy_(torch.eye(width))
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(d_vocab, width, generator=generator) * width**-0.5 * 2
    head[0] = -1.0  # BOS does not follow
    head[:, place] = 0
    model.lm_head.weight.copy_(head)
    names = {"<bos>": 0, **{f"w{i}": i for i in range(1, d_vocab)}}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<bos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>")
    return LanguageModel(model, fast, FAMILIES["gpt2"])


def bigram_sae(lm: LanguageModel, pairs: list[tuple[int, int]], seed: int = 0) -> SAE:
    """An SAE whose latents fire on the second token of a pair behind the first, a little more on
    some such than on others, and are the closer to it the more of the pair is there."""
    width, d_vocab = lm.d_model, lm.d_vocab
    generator = torch.Generator().manual_seed(seed)
    W_enc = 0.2 * torch.rand(width, len(pairs), generator=generator)
    W_enc[2 * d_vocab :] = 0
    for latent, (first, second) in enumerate(pairs):
        W_enc[second, latent] += 1.0
        W_enc[d_vocab + first, latent] += 1.0
    W_dec = torch.nn.functional.normalize(W_enc.T, dim=1).contiguous()
    return SAE("standard", W_enc, W_dec, torch.full((len(pairs),), -1.5), torch.zeros(width))
