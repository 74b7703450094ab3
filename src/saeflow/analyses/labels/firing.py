"""How strongly latents fire on texts that were written to fire them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from saeflow.models.running import capture, padded
from saeflow.saes.subject import Subject

TEXTS_AT_ONCE = 32


@torch.no_grad()
def peaks(
    subject: Subject, texts: Sequence[str], latents: Sequence[int]
) -> Float[np.ndarray, "texts latents"]:
    """The largest activation of latents on each text, BOS left out; 0 on a text without tokens."""
    lm = subject.lm
    rows = [lm.tokenize(text)[: lm.context] for text in texts]
    at = torch.tensor(latents, device=lm.device)
    result = np.zeros((len(texts), len(latents)), np.float32)
    for first in range(0, len(rows), TEXTS_AT_ONCE):
        part = rows[first : first + TEXTS_AT_ONCE]
        if max(map(len, part)) < 2:
            continue
        states = capture(lm, padded(lm, part), [subject.hook])[subject.hook]
        for number, row in enumerate(part):
            if len(row) > 1:
                own = subject.sae.encode(states[number, 1 : len(row)])[:, at]
                result[first + number] = own.float().amax(dim=0).cpu().numpy()
    return result
