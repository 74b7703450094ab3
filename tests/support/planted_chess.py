"""A model of moves with a known mechanism: one direction per square holds its threat, and skill
gates its use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from chess_positions import random_play
from torch import Tensor

from saeflow.chess.analyses.concepts.association import associate
from saeflow.chess.analyses.concepts.directions import concept_directions
from saeflow.chess.analyses.concepts.labelling import label_positions
from saeflow.chess.analyses.concepts.probes import fit
from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.chess.analyses.concepts.subject import Subject
from saeflow.chess.games.boards import Boards
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import MOVES, TO, legal_moves
from saeflow.chess.knowledge.concepts import label
from saeflow.chess.saes.reading import read_site
from saeflow.chess.saes.site import Edit, SiteSAE
from saeflow.saes.sae import SAE

N_BINS, TOKENS, THREATS, OTHERS = 4, 3, 64, 64
D_MODEL = THREATS + OTHERS + 8
USED = (0.2, 0.6, 1.2, 6.0)
"""How much of the threat's direction reaches the move's logit, by rating bin."""
SAME = (1.0,) * N_BINS
CONCEPTS = Concepts(
    families=["offensive_threat", "strategic"],
    minimum=10,
    games=5,
    latents=2,
    rotations=5,
    draws=2000,
)


def _directions() -> Tensor:
    """Orthonormal rows: a direction per threat, per other feature, and some that the SAE does not
    know."""
    square = torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(square).Q


DIRECTIONS = _directions()
LATENT_OF = np.random.default_rng(1).permutation(THREATS + OTHERS)
"""The latent of each planted feature: first the threats by square, then the others."""


def planted_sae() -> SAE:
    """The true dictionary, its latents in an order of their own; what it does not know is its
    error."""
    rows = torch.empty(THREATS + OTHERS, D_MODEL)
    rows[torch.from_numpy(LATENT_OF)] = DIRECTIONS[: THREATS + OTHERS]
    return SAE(
        "standard", rows.T.contiguous(), rows, torch.full((len(rows),), -0.02), torch.zeros(D_MODEL)
    )


@dataclass(frozen=True)
class PlantedModel:
    """Activations hold threats and other features; only threats reach the logits, the more the
    better the player.

    Attributes:
        written: how strong a threat is in the activations, by rating bin.
        used: how much of it reaches the logit of the captures on its square, by rating bin.
    """

    written: tuple[float, ...] = SAME
    used: tuple[float, ...] = USED

    @property
    def n_bins(self) -> int:
        return N_BINS

    def embed(self, boards: Boards) -> Tensor:
        """Threats, other features, and a number that names the position."""
        threats = label(boards, ["offensive_threat"]).values
        seeds = [
            int.from_bytes(hashlib.blake2b(pieces.tobytes(), digest_size=6).digest(), "big")
            for pieces in boards.pieces
        ]
        others = np.stack(
            [
                np.random.default_rng(seed).random(OTHERS) < np.linspace(0.02, 0.4, OTHERS)
                for seed in seeds
            ]
        )
        numbers = np.array(seeds)[:, None]
        return torch.from_numpy(
            np.concatenate([threats, others, numbers], axis=1)
        )  # float64 holds 48 bits

    def judge(self, embedded: Tensor, ratings: Tensor, edit: Edit) -> Tensor:
        n = len(embedded)
        features = embedded[:, : THREATS + OTHERS].float()
        names = embedded[:, -1].long().tolist()
        draws = [
            np.random.default_rng([name, int(rating)])
            for name, rating in zip(names, ratings, strict=True)
        ]
        noise = torch.from_numpy(
            np.stack([draw.normal(size=(TOKENS, D_MODEL)) for draw in draws])
        ).float()
        features[:, :THREATS] *= torch.tensor(self.written)[ratings][:, None]
        features[:, THREATS:] *= 1 + 0.3 * noise[:, 0, THREATS : THREATS + OTHERS].tanh()
        unknown = noise.clone()
        unknown -= unknown @ DIRECTIONS[: THREATS + OTHERS].T @ DIRECTIONS[: THREATS + OTHERS]
        x = (features @ DIRECTIONS[: THREATS + OTHERS])[:, None] + unknown
        x = edit(x)
        base = torch.from_numpy(
            np.stack([np.random.default_rng(name).normal(size=len(MOVES)) for name in names])
        )
        seen = x.mean(dim=1) @ DIRECTIONS[:THREATS].T * torch.tensor(self.used)[ratings][:, None]
        return base.float() + seen[:, torch.from_numpy(TO)].reshape(n, len(MOVES))


GATED = PlantedModel()
"""Knows threats equally well at every rating, and acts on them the more the better it plays."""


@cache
def planted_subject(model: PlantedModel) -> tuple[Subject, SiteSAE]:
    """Random play, its concepts, and the associations of the true dictionary's latents."""
    played = random_play(2400, seed=11, share=0.12)
    n, sae = len(played.boards), SiteSAE(planted_sae())
    games = np.array(played.games)
    ratings = np.random.default_rng(2).integers(0, N_BINS, n)
    moves = legal_moves(played.boards).argmax(axis=1).astype(np.int16)
    bins = ratings.astype(np.int8)
    examples = Examples(played.boards, moves, bins, bins, np.zeros(n, np.int8), games)
    labelled = label_positions(examples, CONCEPTS, seed=0)
    read = read_site(model, sae, played.boards, ratings)
    studied, associations = associate(read.latents, labelled, CONCEPTS, seed=0)
    kept = np.flatnonzero(studied["skipped"].is_null().to_numpy())
    fitted = fit(read.activations, labelled, kept, CONCEPTS)
    directions = concept_directions(fitted, read.activations, labelled, kept)
    subject = Subject(examples, labelled, associations, read.latents, directions=directions)
    return subject, sae
