"""SAEs: loaded, trained, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeflow import options
from saeflow.config import SAETraining
from saeflow.config.sae_files import Given
from saeflow.models.language_model import LanguageModel
from saeflow.notebook.models import published
from saeflow.notebook.texts import Settings, Texts, cached, hook_of, in_blocks, section
from saeflow.saes import evaluation
from saeflow.saes.feeds import cache_feed
from saeflow.saes.io import Elsewhere, sae_from_elsewhere, sae_from_hub
from saeflow.saes.sae import SAE
from saeflow.saes.training import Trained, train_saes
from saeflow.seeds import seed_for


def load_sae(
    source: str | Path,
    *,
    revision: str = "main",
    file: str | None = None,
    format: str = "auto",
    hook: str | None = None,
    target: str | None = None,
    centred: bool = False,
    k: int | None = None,
    scale: float | None = None,
    threshold: float | None = None,
    apply_b_dec_to_input: bool | None = None,
    normalize_activations: str | None = None,
) -> SAE:
    """Load an SAE or a transcoder in any of the formats that saeflow reads.

    Args:
        source: a folder with its files, such as a study's ``saes/<sae>``, or its one file; or,
            where there is neither, a repository ``owner/name`` of the hub.
        revision: of the repository: a branch, a tag or a commit.
        file: of the repository, the SAE's folder or its one file, such as
            ``layer_12/width_16k/average_l0_82/params.npz``.
        format: one of those in ``docs/sae-formats.md``; ``auto`` tells it from the files' names.
        hook: where it will be read; None is where it says that it was trained.
        target: the hook that a transcoder writes.
        centred: it was trained on activations less their mean over the width.
        k: latents per token that TopK keeps, where the files do not say it.
        scale: what activations were multiplied by before it read them, where they do not.
        threshold: what a latent's value must exceed, where they do not.
        apply_b_dec_to_input: whether the decoder's bias is subtracted from the input, where they do
            not.
        normalize_activations: how each token's activation was normalised by itself, where they do
            not: ``layer_norm`` or ``constant_norm_rescale``.

    Returns:
        The SAE with its normalisation folded, on the CPU: ``encode [.., d_model] → [.., d_sae]``,
        ``decode`` back.

    Raises:
        SaeflowError: there is no SAE of a format that is read here, it is damaged, it says itself
            that it was trained elsewhere, or the hub cannot be reached.

    Examples:
        >>> import saeflow as sf
        >>> sae = sf.load_sae("saes/tiny")
        >>> sae.architecture, sae.d_sae, sae.metadata["hook_name"]
        ('topk', 64, 'blocks.1.hook_resid_post')
    """
    given = Given(k, scale, threshold, apply_b_dec_to_input, normalize_activations)
    said = Elsewhere(format, hook, target, centred, given)
    if on_hub := published(source, revision, file):
        return sae_from_hub(on_hub, "load_sae", said)[0]
    return sae_from_elsewhere(Path(source), said)


def train_sae(
    lm: LanguageModel,
    texts: Texts,
    hook: str,
    settings: SAETraining | Settings | None = None,
    *,
    target: str | None = None,
    context: int = 128,
    seed: int = 0,
    name: str = "main",
    progress: bool = False,
) -> Trained:
    """Train an SAE, or with a target a transcoder, on the activations of texts.

    Equal seed, name, settings and blocks of tokens give the SAE of a study to the bit. The
    activations lie in the folder for temporary files while it is trained.

    Args:
        lm: the model.
        texts: one, several, or blocks of tokens.
        hook: where it reads.
        settings: what ``saes.<name>.train`` is in a config; None is every default.
        target: the hook that a transcoder writes.
        context: tokens per block that texts are packed into.
        seed: of the first weights, the order of rows, and resampling.
        name: of the random draws.
        progress: whether to tell how far it is.

    Returns:
        ``sae``, and ``curve``, a table over the tokens seen: error, penalty, L0, dead latents.

    Raises:
        SaeflowError: a setting is wrong, a hook does not exist, the texts hold no token, or the
            training leaves what can be computed.

    Examples:
        >>> import saeflow as sf
        >>> lm = sf.load_model("models/tiny")
        >>> settings = {"d_sae": 64, "k": 4, "batch_size": 64, "tokens": 640}
        >>> texts = ["the cat sat on the mat .", "a dog ran under the tree ."] * 20
        >>> trained = sf.train_sae(lm, texts, "blocks.1.hook_resid_post", settings, context=16)
        >>> trained.sae.W_dec.shape, trained.curve["tokens"][-1]
        (torch.Size([64, 32]), 640)
    """
    chosen = section(SAETraining, settings, "train_sae")
    hooks = [hook, target] if target else [hook]
    beat = options.progress("train SAE, tokens") if progress else None
    with cached(lm, hooks, in_blocks(lm, texts, context)) as stores:
        feed = cache_feed(
            stores[:1],
            stores[1] if target else None,
            chosen.batch_size,
            seed_for(seed, "sae", name, "order"),
        )
        (trained,) = train_saes(
            feed,
            [chosen],
            seed_for(seed, "sae", name),
            progress=(lambda at: beat(at.tokens, at.of)) if beat else None,
            device=str(lm.device),
        )
    return trained


def evaluate_sae(
    lm: LanguageModel,
    sae: SAE,
    texts: Texts,
    *,
    hook: str | None = None,
    context: int = 128,
) -> dict[str, Any]:
    """Measure how faithful an SAE is to the activations of texts, and to the model's predictions.

    BOS is left alone and counts in no metric of activations, as in a study.

    Args:
        lm: the model.
        sae: the SAE or transcoder.
        texts: that it was not trained on; one, several, or blocks of tokens.
        hook: where it reads; None is where it says that it was trained.
        context: tokens per block that texts are packed into.

    Returns:
        ``explained_variance``, ``mse``, ``cosine``, ``l0``; losses in nats per token, clean, with
        the SAE spliced in, ablated; ``recovered`` of the loss, ``kl``; standard errors over blocks
        (``<name>_se``) where there are several; ``dead`` and ``dense`` latents.

    Raises:
        SaeflowError: the hook does not exist or has another width, or the texts hold no token.

    Examples:
        >>> import saeflow as sf
        >>> lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
        >>> metrics = sf.evaluate_sae(lm, sae, "the cat sat on the mat and then ran .")
        >>> metrics["l0"] <= 4  # a TopK SAE with k = 4
        True
    """
    return evaluation.evaluate_sae(lm, sae, hook_of(sae, hook), in_blocks(lm, texts, context))
