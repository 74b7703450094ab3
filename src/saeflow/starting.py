"""A job starts without what it has no use for.

The modelling code of transformers imports what shards tensors over machines, serves many users at
once, traces programs and detects objects: half of the time that a job takes to start. A job is one
process with decoding of its own, and needs none of it. Where one of these is used all the same, it
is imported then.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

UNUSED = (
    "transformers.generation.continuous_batching",
    "transformers.integrations.flex_attention",
    "transformers.loss.loss_",
)
"""How the names of modules begin that other modules of transformers take classes from, to derive
from or to register them; none is called here."""
EXCEPT = "transformers.loss.loss_utils"
TRACING = "torch._dynamo"
MARKS = "torch._compile"
TRACED = (
    "transformers.masking_utils",
    *(f"transformers.integrations.{name}" for name in ("finegrained_fp8", "deepgemm", "sonicmoe")),
)
"""Modules that name something of `TRACING` when they are imported."""


def spare_imports() -> None:
    """Spare this process, which must be a job, these imports; call it before torch is
    imported."""
    sys.meta_path.insert(0, _Spared())


def _compile_nothing_and_stay_alone() -> None:
    """Make torch say what transformers asks it, as in a build without distribution, and leave marks
    for its compiler out."""
    import torch

    torch.distributed.is_available = lambda: False
    for mark in ("disable", "allow_in_graph", "assume_constant_result"):
        setattr(torch.compiler, mark, _as_it_is)


def _as_it_is(fn: Any = None, *_: Any, **__: Any) -> Any:
    """Keeps a function out of what is compiled, where nothing is."""
    return fn if fn is not None else _as_it_is


class _Spared(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives stand-ins for `UNUSED`, and loads `TRACED` without `TRACING`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "transformers":
            _compile_nothing_and_stay_alone()
        if fullname.startswith(UNUSED) and fullname != EXCEPT:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        if fullname == MARKS or (fullname in TRACED and TRACING not in sys.modules):
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
            if spec and spec.loader:
                around = _unmarking if fullname == MARKS else _tracing_aside
                spec.loader = _Within(spec.loader, around)
            return spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = _placeholder


def _placeholder(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


class _Within(importlib.abc.Loader):
    """Loads a module within a context."""

    def __init__(
        self,
        loader: importlib.abc.Loader,
        around: Callable[[ModuleType], AbstractContextManager[None]],
    ) -> None:
        self._loader = loader
        self._around = around

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with self._around(module):
            self._loader.exec_module(module)


@contextmanager
def _unmarking(module: ModuleType) -> Iterator[None]:
    """Functions of torch that its compiler leaves alone import it when they are called first; here
    they stay as they are, for nothing is compiled."""
    yield
    vars(module)["_disable_dynamo"] = _as_it_is


@contextmanager
def _tracing_aside(module: ModuleType) -> Iterator[None]:
    """Stand-ins are in the place of `TRACING` meanwhile."""
    import torch

    used = f"{TRACING}._trace_wrapped_higher_order_op"
    stands = {TRACING: ModuleType(TRACING), used: ModuleType(used)}
    marks = ("assume_constant_result", "allow_in_graph")
    vars(stands[TRACING]).update(dict.fromkeys(marks, _as_it_is))
    vars(stands[used])["TransformGetItemToIndex"] = _transform
    sys.modules.update(stands)
    vars(torch)["_dynamo"] = stands[TRACING]
    try:
        yield
    finally:
        del vars(torch)["_dynamo"]
        for name in stands:
            del sys.modules[name]


def _transform() -> Any:
    """An object of the class of this name, which is imported when it is used."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

    return TransformGetItemToIndex()
