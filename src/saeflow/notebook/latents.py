"""What a latent does, and where it fires."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.examples.io import write_examples
from saeflow.analyses.examples.settings import Examples
from saeflow.analyses.logit_lens.lens_tables import token_table, written_hook
from saeflow.analyses.logit_lens.logit_lens import look_through
from saeflow.analyses.logit_lens.settings import Projection
from saeflow.analyses.steering.io import SteeringVector
from saeflow.corpora.io import save_blocks
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel
from saeflow.models.unembedding import unembedding
from saeflow.models.vocabulary import vocabulary
from saeflow.notebook.texts import Texts, cached, hook_of, in_blocks, section
from saeflow.saes.sae import SAE
from saeflow.tables import read_table


def logit_lens(
    lm: LanguageModel,
    directions: SAE | SteeringVector | Float[Tensor, "*n d_model"],
    latents: int | Sequence[int] | None = None,
    *,
    tokens: int = 10,
    steps: Sequence[str] = ("final_norm", "centred"),
    hook: str | None = None,
) -> pl.DataFrame:
    """The tokens that latents or other directions of the residual stream make likely and unlikely.

    Args:
        lm: the model.
        directions: an SAE, whose decoder rows are looked at; a steering vector; or one or several
            directions.
        latents: which of the SAE's latents, or of the directions; None is all.
        tokens: listed at either end.
        steps: what is done to the unembedding first: ``final_norm`` folds the final norm's weights
            in, ``centred`` takes away the mean over tokens, ``cosine`` brings all rows to length 1.
        hook: where the SAE reads; None is where it says that it was trained.

    Returns:
        Of every latent the rows ``top`` and ``bottom`` (``side``), the extreme ones first:
        ``latent`` (or the number of the direction), ``side``, ``rank``, ``token_id``, ``token``,
        ``weight`` (of the direction at its own length, in logits).

    Raises:
        SaeflowError: there is no such latent, what the SAE writes is no direction of the residual
            stream, or the model has no final norm to fold in.

    Examples:
        >>> import saeflow as sf
        >>> lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
        >>> lens = sf.logit_lens(lm, sae, latents=5, tokens=3)
        >>> lens["side"].to_list()
        ['top', 'top', 'top', 'bottom', 'bottom', 'bottom']
    """
    chosen = section(Projection, {"tokens": tokens, "unembedding": list(steps)}, "logit_lens")
    if isinstance(directions, SAE):
        written_hook(lm, directions, hook_of(directions, hook))
        rows = directions.W_dec
    else:
        rows = directions.vector if isinstance(directions, SteeringVector) else directions
        rows = rows.reshape(-1, rows.shape[-1])
        if rows.shape[1] != lm.d_model:
            raise SaeflowError(
                f"logit_lens: the directions are {rows.shape[1]} wide and the model {lm.d_model}; "
                "take directions of this model's residual stream"
            )
    numbers = chosen_latents(latents, len(rows))
    words = vocabulary(lm.tokenizer, lm.d_vocab)
    through = unembedding(lm, words.ids.tolist(), chosen.unembedding)
    table = look_through(
        rows[numbers].detach().to(lm.device, torch.float32), through, [], chosen.tokens
    )
    # Rows of the table count the directions looked at; they are called by their own numbers.
    own = pl.col("latent").replace_strict(range(len(numbers)), numbers, return_dtype=pl.Int32)
    return token_table(table, words).with_columns(own)


def top_examples(
    lm: LanguageModel,
    sae: SAE,
    texts: Texts,
    latents: int | Sequence[int] | None = None,
    *,
    top: int = 10,
    before: int = 20,
    after: int = 6,
    hook: str | None = None,
    context: int = 128,
) -> pl.DataFrame:
    """The places in texts where latents fire most, at most one per block of tokens.

    Args:
        lm: the model.
        sae: the SAE.
        texts: to look in; one, several, or blocks of tokens.
        latents: which; None is all.
        top: places per latent.
        before: tokens shown before the one that fires.
        after: tokens shown after it.
        hook: where the SAE reads; None is where it says that it was trained.
        context: tokens per block that texts are packed into.

    Returns:
        By latent, the strongest first: ``latent``, ``rank``, ``activation``, ``token`` (that it
        fires on), ``text`` around it, ``block``, ``position``, ``offset`` (of the token among those
        shown), ``token_ids`` and ``activations`` of these. A latent that never fires has no row.

    Raises:
        SaeflowError: there is no such latent or hook, or the texts hold no token.

    Examples:
        >>> import saeflow as sf
        >>> lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
        >>> examples = sf.top_examples(lm, sae, ["the cat sat .", "a dog ran ."], top=1, context=5)
        >>> examples["rank"].max(), examples["activation"].min() > 0
        (0, True)
    """
    said = {"top": top, "before": before, "after": after, "strata": 0, "cofiring": 0}
    settings = section(Examples, said, "top_examples")
    numbers = chosen_latents(latents, sae.d_sae)
    blocks = in_blocks(lm, texts, context)
    words = vocabulary(lm.tokenizer, lm.d_vocab)
    with (
        cached(lm, [hook_of(sae, hook)], blocks) as (store,),
        TemporaryDirectory(prefix="saeflow-") as folder,
    ):
        corpus, output = Path(folder) / "corpus.safetensors", Path(folder) / "examples"
        save_blocks(corpus, blocks)
        write_examples(output, store, sae.to(lm.device), corpus, words, settings, seed=0)
        contexts = read_table(output / "contexts.parquet").filter(pl.col("latent").is_in(numbers))
    fired = contexts["token_ids"].list.get(contexts["offset"])
    return contexts.select(
        "latent",
        "rank",
        "activation",
        fired.replace_strict(words.ids, words.texts, return_dtype=pl.String).alias("token"),
        pl.Series(
            "text", [lm.tokenizer.decode(ids) for ids in contexts["token_ids"].to_list()], pl.String
        ),
        "block",
        "position",
        "offset",
        "token_ids",
        "activations",
    )


def chosen_latents(latents: int | Sequence[int] | None, of: int) -> list[int]:
    """The numbers of latents, of which one or all may be meant.

    Raises:
        SaeflowError: there is no such latent.
    """
    if latents is None:
        return list(range(of))
    numbers = [latents] if isinstance(latents, int | np.integer) else list(latents)
    if absent := [number for number in numbers if not 0 <= number < of]:
        raise SaeflowError(f"latents: {absent[0]} does not exist; there are {of} (0..{of - 1})")
    return [int(number) for number in numbers]
