"""A GPU that is not there: tensors that say they lie on ``cuda:0``, and keep to a GPU's rules.

Torch's fake tensors hold no numbers, so they stop where a program asks for one: at the first loss,
mask or search. These tensors hold theirs in memory of the CPU and compute there, in the same order,
but nothing else gives them away: a product of two devices, an array taken without `.cpu()`, a
generator of the CPU, a step that a graph cannot record, each is the error that it is on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map

aten = torch.ops.aten
GPU, META, CPU = torch.device("cuda:0"), torch.device("meta"), torch.device("cpu")
# Operations in which a GPU's tensor may meet the CPU's: copies, and indices of the CPU.
_MAY_MIX = {aten.copy_, aten._to_copy, aten.index, aten.index_put_, aten.index_put}
# A matrix times few vectors is none of them: it reads the matrix once, as a copy to the CPU does. Nor
# are products of statistics, in fp64.
_FEW = 8
_PRODUCTS = {
    *(aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.addbmm, aten.convolution),
    *(aten._embedding_bag, aten._embedding_bag_forward_only, aten._convolution),
    *(aten._scaled_dot_product_flash_attention_for_cpu, torch.ops.mkldnn._linear_pointwise),
}
_ASKS_THE_GPU = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero}


class CudaTensor(torch.Tensor):
    """Numbers of a GPU that is not there.

    To the autograd engine of a torch without CUDA it is a tensor of the device ``meta``, to all of
    Python one of ``cuda:0``.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> CudaTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=META,
        )
        tensor.held = held
        return tensor

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return PretendedCuda.computed(operation, args, kwargs or {})

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use .cpu() first")

    __array__ = __dlpack__ = numpy

    def tolist(self) -> Any:
        _note_question("tolist")
        return self.detach().held.tolist()

    def __reduce_ex__(self, protocol: int) -> Any:
        return CudaTensor, (self.detach().held,)

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"{self.detach().held!r} on {GPU}"


class Product(NamedTuple):
    """A product that was computed on the CPU."""

    operation: str
    shapes: list[tuple[int, ...]]


class PretendedCuda(TorchDispatchMode):
    """Within the block operations on `CudaTensor` obey a GPU's rules, and products of the CPU are
    noted.

    Attributes:
        of_cpu: products between matrices of the CPU, in float32 or less.
        of_gpu: how many there were of the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_cpu: list[Product] = []
        self.of_gpu = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if operation.overloadpacket in _PRODUCTS:
            tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
            if any(isinstance(tensor, CudaTensor) for tensor in tensors):
                self.of_gpu += 1
            elif tensors[0].dtype != torch.float64 and len(tensors[0]) >= _FEW:
                shapes = [tuple(tensor.shape) for tensor in tensors]
                self.of_cpu.append(Product(str(operation), shapes))
        return self.computed(operation, args, kwargs)

    @staticmethod
    def computed(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The result of an operation, on the device on which it is.

        Raises:
            RuntimeError: tensors of two devices meet.
        """
        leaves = list(tree_iter((args, kwargs)))
        on_gpu = any(isinstance(leaf, CudaTensor) for leaf in leaves)
        wanted = kwargs.get("device")
        if on_gpu:
            _check_devices(operation, leaves, args)
        on_gpu = torch.device(wanted) in (META, GPU) if wanted is not None else on_gpu
        if on_gpu and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if wanted is not None:
            kwargs = {**kwargs, "device": CPU}
        kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
        if operation.overloadpacket in _ASKS_THE_GPU and on_gpu:
            _note_question(str(operation))
        if operation.overloadpacket is aten._fused_sdp_choice:
            return 0  # attention step by step
        bare_args, bare_kwargs = tree_map(_held, (args, kwargs))
        result = operation(*bare_args, **bare_kwargs)
        if GRAPHS and on_gpu:
            GRAPHS[-1].steps.append(_Step(operation, bare_args, bare_kwargs, result))
        # What was changed in place is what was given.
        given = {id(_held(leaf)): leaf for leaf in leaves if isinstance(leaf, Tensor)}

        def back(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) in given:
                return given[id(value)]
            return CudaTensor(value) if on_gpu else value

        return tree_map(back, result)


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, CudaTensor) else leaf


def _check_devices(operation: Any, leaves: list[Any], args: Any) -> None:
    strangers = [
        leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, CudaTensor)
    ]
    if operation.overloadpacket in _MAY_MIX:
        if GRAPHS and strangers:
            _note_question(str(operation))
        if operation.overloadpacket in (aten.index, aten.index_put_, aten.index_put):
            # Indices may be of the CPU; what is indexed and what is written there may not.
            values = [args[0], *args[2:3]]
            strangers = [leaf for leaf in strangers if any(leaf is value for value in values)]
        else:
            return
    # Numbers of the CPU go to a GPU as arguments of its kernels, where these work number by number.
    by_number = torch.Tag.pointwise in operation.tags or operation.overloadpacket in (
        aten.index_put_,
        aten.index_put,
        aten.index_fill_,
        aten.masked_fill,
        aten.masked_fill_,
        aten.fill_,
    )
    if any(stranger.dim() or not by_number for stranger in strangers):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{GPU} and cpu, in {operation}"
        )


class _OnMeta(TorchFunctionMode):
    """Has torch's functions make tensors on ``meta`` where they were asked for a GPU's: one without
    CUDA looks for a driver before it asks a mode."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            return _from_numbers(function, args, kwargs)
        if function in (torch.device, torch.get_device_module):
            return function(*args, **kwargs)
        args, kwargs = tree_map(_renamed, (args, kwargs))
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        return function(*args, **kwargs)


def _renamed(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return META
    if isinstance(value, str) and value.partition(":")[0] == "cuda":
        return META
    return value


def _from_numbers(function: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """A tensor of Python's numbers: on ``meta`` torch itself would drop them."""
    device = kwargs.pop("device", None)
    if function is torch.Tensor.new_tensor:
        first, *args = args
        device = first.device if device is None else device
        kwargs.setdefault("dtype", first.dtype)
        function = torch.tensor
    if device is None and isinstance(args[0], CudaTensor):
        device = GPU
    if isinstance(args[0], CudaTensor):
        return args[0].to(META if torch.device(device).type == "cuda" else device, **kwargs)
    if device is None or torch.device(device).type != "cuda":
        return function(*args, device=device, **kwargs)
    if GRAPHS:
        _note_question(f"torch.{function.__name__}")
    return function(*args, device="cpu", **kwargs).to(META)


class _Step(NamedTuple):
    """An operation that a graph repeats, in the memory in which it was recorded."""

    operation: Callable[..., Any]
    args: Any
    kwargs: dict[str, Any]
    result: Any


class Graph:
    """A recorded run of operations, which a replay repeats in the same memory and nowhere else: what
    Python did meanwhile is not in it."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []

    def replay(self) -> None:
        """Repeat all operations, in the order in which they were recorded."""
        with _disable_current_modes():
            for step in self.steps:
                again = step.operation(*step.args, **step.kwargs)
                for was, now in zip(tree_iter(step.result), tree_iter(again), strict=True):
                    if isinstance(was, Tensor) and was.data_ptr() != now.data_ptr():
                        was.copy_(now)


GRAPHS: list[Graph] = []  # those that are being recorded


def _note_question(what: str) -> None:
    if GRAPHS:
        raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


@contextmanager
def _recorded(graph: Graph, *_: Any, **__: Any) -> Iterator[None]:
    GRAPHS.append(graph)
    try:
        yield
    finally:
        GRAPHS.pop()


class _Stream:
    def wait_stream(self, other: _Stream) -> None:
        """Everything runs in one stream."""


@contextmanager
def pretended_cuda() -> Iterator[PretendedCuda]:
    """Within the block, the machine has a GPU as far as torch's Python is concerned."""
    from transformers import LlamaForCausalLM  # noqa: F401 - asks torch what there is when imported

    from saeflow.models import language_model

    read = language_model._read_weights

    def on_cpu(*args: Any) -> Any:
        with _disable_current_modes():  # transformers has a use of its own for ``meta``
            return read(*args)

    cuda = {
        "is_available": lambda: True,
        "_lazy_init": lambda: None,  # asked for where a hook of autograd makes a tensor
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: 1,
        "mem_get_info": lambda *_: (1 << 36, 1 << 36),
        "synchronize": lambda *_: None,
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": lambda _: ExitStack(),
        "CUDAGraph": Graph,
        "graph": _recorded,
    }
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch, PretendedCuda() as mode, _OnMeta():
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(language_model, "_read_weights", on_cpu)
        # A module's parameter stays the same object when it goes to another device, so that what is
        # tied stays tied; torch takes `CudaTensor` for another kind of tensor.
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            yield mode
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
