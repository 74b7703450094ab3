"""The methods that steer: one entry each.

A new method that builds a vector is one entry here, and the function of its name in
`saeflow.analyses.steering.vectors`; one that says in words what vectors are to do has its function
in `saeflow.analyses.steering.prompting`.
"""

from __future__ import annotations

from dataclasses import dataclass

from saeflow.palette import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INK,
    ORANGE,
    OTHER,
    PURPLE,
    SKY,
    TEAL,
    VERMILLION,
    Look,
)

PLANTED = "_planted"
"""Ends the name of a method that is given the latent that detects the goal's planted topic best."""


@dataclass(frozen=True)
class Method:
    """One way to steer."""

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
    pursues: bool = False
    """It chooses its own targets, as those that make up the vector of the contrast examples."""
    has_planted: bool = False
    """It aims at target latents, and so has a twin that is given the planted ones."""
    at_any_layer: bool = False
    """It is built from the model alone, at whatever layer; others need an SAE, which reads at
    one."""
    in_words: bool = False
    """It builds no vector and has no scale: it puts words in front of the prompt."""


METHODS = (
    Method(
        "caa",
        Look(BLUE, "o"),
        "from contrast examples",
        "Contrastive activation addition: the mean activation of texts that show the behaviour, "
        "minus that of texts that do not.",
        at_any_layer=True,
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
        "pursuit",
        Look(INK, "p"),
        "few decoder rows that come closest to the vector of ``caa``",
        "What a few latents hold of contrastive activation addition: decoder rows and weights that "
        "a pursuit chooses, so that their sum comes close to that vector.",
        pursues=True,
    ),
    Method(
        "random",
        Look(GREY, "X"),
        "a control",
        "A direction drawn at random. The control: a method that does not beat it does nothing.",
        at_any_layer=True,
    ),
    Method(
        "prompt",
        Look(BROWN, "H"),
        "an instruction in the system message",
        "No vector: the model is told in words what its text is to show, in the system message of "
        "a chat model, else in front of the prompt.",
        in_words=True,
    ),
    Method(
        "few_shot",
        Look(TEAL, "<"),
        "texts that show the behaviour, in front of the prompt",
        "No vector: some of the texts that show the behaviour stand in front of the prompt, as "
        "answers of the assistant in a chat.",
        in_words=True,
    ),
)
"""In the order of tables, figures and legends."""

BY_NAME = {method.name: method for method in METHODS}
BUILDING = tuple(method for method in METHODS if not method.in_words)
"""Those that build vectors."""
AT_ANY_LAYER = tuple(method.name for method in BUILDING if method.at_any_layer)
TELLING = tuple(method for method in METHODS if method.in_words)
"""Those that say it in words."""
IN_WORDS = {method.name for method in TELLING}
NAMES = (
    *(method.name for method in BUILDING),
    *(f"{method.name}{PLANTED}" for method in BUILDING if method.has_planted),
)
"""What `steering.vectors.methods` may name."""


def method_of(name: str) -> Method:
    """The method of a name, which may end in `PLANTED`."""
    return BY_NAME[name.removesuffix(PLANTED)]


def look(name: str) -> Look:
    """How a method is drawn; those that are not known here look alike."""
    return BY_NAME[name].look if name in BY_NAME else OTHER
