"""The methods that build steering vectors: one entry each.

A new method is one entry here, and the function of its name in `saeflow.analyses.steering.vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass

from saeflow.palette import BLUE, GREEN, GREY, ORANGE, OTHER, PURPLE, SKY, VERMILLION, Look

PLANTED = "_planted"
"""Ends the name of a method that is given the latent that detects the goal's planted topic best."""


@dataclass(frozen=True)
class Method:
    """One way to build a steering vector."""

    name: str
    look: Look
    brief: str
    """What it is built from, for the reference of the config."""
    words: str
    """What it does, for the report."""
    needs_effects: bool = False
    """It is built from the approximator of effects."""
    needs_differing: bool = False
    """It chooses its own targets, from what differs between a goal's examples."""
    has_planted: bool = False
    """It aims at target latents, and so has a twin that is given the planted ones."""


METHODS = (
    Method(
        "caa",
        Look(BLUE, "o"),
        "from contrast examples",
        "Contrastive activation addition: the mean activation of texts that show the behaviour, "
        "minus that of texts that do not.",
    ),
    Method(
        "sae",
        Look(ORANGE, "s"),
        "a decoder row",
        "The decoder rows of the target latents, as the SAE has them.",
        has_planted=True,
    ),
    Method(
        "sae_ts",
        Look(VERMILLION, "D"),
        "from the effect approximator",
        "SAE-targeted steering: the direction that the effect approximator says raises the target "
        "latents most, minus the direction that only serves its bias.",
        needs_effects=True,
        has_planted=True,
    ),
    Method(
        "pinverse",
        Look(PURPLE, "^"),
        "from the effect approximator",
        "The approximator turned round: the vector whose predicted effects come closest to "
        "raising the target latents and nothing else.",
        needs_effects=True,
        has_planted=True,
    ),
    Method(
        "rotation",
        Look(GREEN, "v"),
        "from the effect approximator",
        "The decoder rows of the target latents, turned by the one rotation that best takes "
        "decoder rows to where the approximator sees their effects, minus the direction of its "
        "bias.",
        needs_effects=True,
        has_planted=True,
    ),
    Method(
        "fgaa",
        Look(SKY, "P"),
        "from contrast examples in SAE space and the effect approximator",
        "Feature guided activation additions: the latents that differ most between the goal's "
        "examples, less dense ones, through the approximator as in SAE-targeted steering.",
        needs_effects=True,
        needs_differing=True,
    ),
    Method(
        "random",
        Look(GREY, "X"),
        "a control",
        "A direction drawn at random. The control: a method that does not beat it does nothing.",
    ),
)
"""In the order of tables, figures and legends."""

BY_NAME = {method.name: method for method in METHODS}
NAMES = (*BY_NAME, *(f"{method.name}{PLANTED}" for method in METHODS if method.has_planted))
"""What `steering.vectors.methods` may name."""


def method_of(name: str) -> Method:
    """The method of a name, which may end in `PLANTED`."""
    return BY_NAME[name.removesuffix(PLANTED)]


def look(name: str) -> Look:
    """How a method is drawn; those that are not known here look alike."""
    return BY_NAME[name].look if name in BY_NAME else OTHER
