"""One module per architecture of SAEs, of the name that configs have for it.

`saeflow.config.sections.architectures` lists them; each module defines `ARCHITECTURE`, its class.
`topk` is a short example, `jumprelu` one with parameters of its own.
"""

from __future__ import annotations

from importlib import import_module

from saeflow.config.sections import SAETraining
from saeflow.saes.architectures.architecture import Architecture
from saeflow.saes.parallel import ALONE, TensorParallel


def architecture_of(settings: SAETraining, parallel: TensorParallel = ALONE) -> Architecture:
    """The architecture that settings name, ready to train the latents that this process has."""
    module = import_module(f"{__name__}.{settings.architecture}")
    kind: type[Architecture] = module.ARCHITECTURE
    return kind(settings, parallel)
