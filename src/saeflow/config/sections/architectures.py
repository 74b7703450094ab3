"""The architectures of SAEs that are trained here, as far as a config and a report must know them.

The mathematics of each is the module of its name in `saeflow.saes.architectures`. An entry here and
that module are all that a new architecture takes, besides keys of ``train`` that only it reads.
"""

from __future__ import annotations

from typing import NamedTuple


class ArchitectureTraits(NamedTuple):
    """What is known of an architecture before torch is there.

    Attributes:
        label: how a report calls it.
        does: its activation function and loss, in words for the reference.
        settings: those keys of ``train`` that it reads and others do not.
        coefficient: the default of ``sparsity_coefficient``.
        crosscoder: whether it may read and rebuild several sources.
    """

    label: str
    does: str
    settings: tuple[str, ...]
    coefficient: float = 0.0
    crosscoder: bool = False

    @property
    def takes_k(self) -> bool:
        """Whether the number of active latents is given; where it is not, activity has a price."""
        return "k" in self.settings


ARCHITECTURES: dict[str, ArchitectureTraits] = {
    "standard": ArchitectureTraits(
        "ReLU", "ReLU with L1", ("sparsity_coefficient",), coefficient=1.5e-2, crosscoder=True
    ),
    "gated": ArchitectureTraits(
        "gated ReLU",
        "gated ReLU with L1 on the gate",
        ("sparsity_coefficient",),
        coefficient=1.5e-2,
    ),
    "jumprelu": ArchitectureTraits(
        "JumpReLU",
        "JumpReLU with L0",
        ("sparsity_coefficient", "target_l0", "bandwidth"),
        coefficient=4e-3,
        crosscoder=True,
    ),
    "topk": ArchitectureTraits(
        "TopK", "TopK", ("k", "k_start", "anneal_fraction", "auxiliary_coefficient")
    ),
    "batchtopk": ArchitectureTraits(
        "BatchTopK",
        "BatchTopK",
        ("k", "k_start", "anneal_fraction", "auxiliary_coefficient"),
        crosscoder=True,
    ),
    "matryoshka": ArchitectureTraits(
        "Matryoshka",
        "BatchTopK whose first latents reconstruct alone, too",
        ("k", "k_start", "anneal_fraction", "auxiliary_coefficient", "prefixes"),
    ),
}


def label(name: str) -> str:
    """How a report calls an architecture, one of other libraries by its own name."""
    return ARCHITECTURES[name].label if name in ARCHITECTURES else name


def readers(setting: str, mark: str = "``") -> str:
    """The architectures that read a key of ``train``, each in marks; by default the reference's."""
    return ", ".join(
        f"{mark}{name}{mark}"
        for name, traits in ARCHITECTURES.items()
        if setting in traits.settings
    )


def described() -> str:
    """What every architecture does, for the reference."""
    return "; ".join(f"``{name}``: {traits.does}" for name, traits in ARCHITECTURES.items())
