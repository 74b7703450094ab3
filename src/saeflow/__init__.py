"""saeflow takes a language model to figures through sparse autoencoders.

``import saeflow as sf`` gives the verbs of `saeflow.notebook`, each loaded when it is first asked
for: importing this package imports neither torch nor any other library.
"""

import os
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# torch asks once, at its first tensor, whether large ones may lie on large pages. Where the kernel
# gives these when it is asked, a gradient that is made anew at every step costs a hundredth of the
# page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from saeflow.notebook.latents import logit_lens, top_examples
    from saeflow.notebook.models import capture, load_model
    from saeflow.notebook.saes import evaluate_sae, load_sae, train_sae
    from saeflow.notebook.steering import steer, steering_vector
    from saeflow.notebook.study import open_study
else:  # a type checker would take whatever this answers to for granted
    _MODULES = {
        "load_model": "models",
        "capture": "models",
        "load_sae": "saes",
        "train_sae": "saes",
        "evaluate_sae": "saes",
        "logit_lens": "latents",
        "top_examples": "latents",
        "steering_vector": "steering",
        "steer": "steering",
        "open_study": "study",
    }

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module 'saeflow' has no attribute '{name}'")
        from importlib import import_module

        verb = getattr(import_module(f"saeflow.notebook.{_MODULES[name]}"), name)
        globals()[name] = verb  # asked for once
        return verb

    def __dir__():
        return sorted({*globals(), *_MODULES})


__all__ = [
    "capture",
    "evaluate_sae",
    "load_model",
    "load_sae",
    "logit_lens",
    "open_study",
    "steer",
    "steering_vector",
    "top_examples",
    "train_sae",
]
