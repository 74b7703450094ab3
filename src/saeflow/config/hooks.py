"""The names of hooks, as text: which there are, in which order, and which are two names of one
tensor.

A hook names a tensor of the forward pass in TransformerLens's words: ``blocks.2.hook_resid_post``
is the residual stream after layer 2. Which module of a model has that tensor is
`saeflow.models.families`' to say.
"""

from __future__ import annotations

import re

SITES = (
    "hook_resid_pre",
    "ln1.hook_normalized",
    "attn.hook_z",
    "attn.hook_out",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "mlp.hook_in",
    "mlp.hook_out",
    "hook_mlp_out",
    "hook_resid_post",
)
"""What a layer may have, in the order of the forward pass.

``ln1.hook_normalized`` and ``ln2.hook_normalized`` are what the norms before attention and MLP give
before their weights; ``mlp.hook_in`` is what the MLP reads, after them. ``attn.hook_out`` and
``mlp.hook_out`` are what the modules give, ``hook_attn_out`` and ``hook_mlp_out`` what is added to
the residual stream: two tensors where a norm or a factor stands between.
"""

NOT_IN_THE_STREAM = ("ln1.hook_normalized", "attn.hook_z", "ln2.hook_normalized", "mlp.hook_in")
"""Sites whose tensors neither are the residual stream of any model nor are added to it."""

OF_A_MODULE = {"attn.hook_out": "hook_attn_out", "mlp.hook_out": "hook_mlp_out"}
"""What modules give, and what is added to the residual stream after it: one tensor where neither a
norm nor a factor stands between, as in most families."""

SYNONYMS = {
    "hook_in": "hook_resid_pre",
    "attn.o.hook_in": "attn.hook_z",
    "hook_out": "hook_resid_post",
}
"""Names that TransformerLens 3 and 4 use for a site, whatever the model."""

HOOK = (
    r"^blocks\.(0|[1-9][0-9]*)\."
    rf"({'|'.join(re.escape(site) for site in (*SITES, *SYNONYMS))})$"
)
"""The pattern of a hook's name in a config."""


def one_name(hook: str) -> str:
    """The name by which a tensor goes everywhere, so that two names of it make one cache.

    The residual stream before a layer is the one after the layer below. Text that is no name of a
    hook stays as it is.
    """
    match = re.fullmatch(r"blocks\.(\d+)\.([\w.]+)", hook)
    if not match:
        return hook
    layer, site = int(match[1]), SYNONYMS.get(match[2], match[2])
    if site == "hook_resid_pre" and layer > 0:
        layer, site = layer - 1, "hook_resid_post"
    return f"blocks.{layer}.{site}"
