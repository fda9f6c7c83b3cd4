"""A GPU for tests where there is none: tensors that say they lie on cuda:0 and hold their numbers in main memory.

Inside of `pretend_gpu()` torch.cuda says that there is a GPU, and every operation below autograd is watched. What CUDA
refuses is refused: operations on tensors of two devices, .numpy() of a device's tensor, a processor's generator for a
draw on the device, products of whole numbers, and fused optimisers over weights, gradients and moments of different
layouts (which a processor takes, wrongly). The device has a random state of its own. What CUDA does silently but slowly
is counted: waits for the device (.item(), bool(), nonzero(), ...), copies between the two memories, and operations,
about one kernel each. Waits and copies are counted by the line of this project that asked for them.

What it cannot show:

- Numbers: its kernels are the processor's, without TF32, cuDNN, cuBLAS or CUDA's order of sums.
- Operations that CUDA lacks for a type, and layouts that CUDA's kernels choose for their results.
- What C++ asks for below autograd, where these tensors count as the processor's; within a backward pass a new tensor is
  taken for the device's without a check.
- Time, streams, pinned memory, NCCL, a fork after CUDA has started, and several GPUs: all are cuda:0.
- `foreach` optimisers: torch takes them for plain tensors only, so that their kernels are overcounted.

It rests on private names of torch 2.13. FakeTensorMode, meta tensors and PrivateUse1 do not do: the first ends the
process at autograd's first node, the second have no values, and the third cannot be called cuda.
"""

import collections
import contextlib
import sys
import typing as t
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

HOME = Path(__import__("encoders").__file__).resolve().parent.parent
OURS = tuple(str(HOME / name) + "/" for name in ("bench", "encoders", "protocols"))
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
aten = torch.ops.aten


class DeviceError(RuntimeError):
    """What CUDA would refuse."""


class Pretend(Tensor):
    """A tensor that says to Python that it lies on a GPU. For C++ it lies on the processor."""

    held: Tensor  # the same numbers, as a plain tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretend":
        return Tensor._make_subclass(cls, held.detach(), False)

    def __init__(self, held: Tensor) -> None:
        self.held = held.detach()

    @property
    def device(self) -> torch.device:
        return CUDA

    def get_device(self) -> int:
        return 0

    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def numpy(self, *_: t.Any, **__: t.Any) -> t.NoReturn:
        raise TypeError(f"can't convert cuda:0 device type tensor to numpy ({_where()}). Use Tensor.cpu() first")

    __array__ = numpy

    def cpu(self, *_: t.Any, **__: t.Any) -> Tensor:
        return _to(self, CPU, None)

    def cuda(self, *_: t.Any, **__: t.Any) -> Tensor:
        return self

    def to(self, *args: t.Any, **kwargs: t.Any) -> Tensor:
        return _moved(self, args, kwargs)

    def tolist(self) -> t.Any:
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: t.Any) -> t.Any:
        raise DeviceError(f"pickled on the device at {_where()}")

    @classmethod
    def __torch_function__(cls, func: t.Any, types: t.Any, args: t.Any = (), kwargs: t.Any = None) -> t.Any:
        if func is Tensor.to:  # also of a plain tensor to the place of one of ours
            return _moved(args[0], args[1:], kwargs or {})
        if func in (Tensor.numpy, Tensor.__array__):
            return args[0].numpy()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: t.Any, types: t.Any, args: t.Any = (), kwargs: t.Any = None) -> t.Any:
        raise DeviceError(f"{func} on a pretended GPU's tensor outside of pretend_gpu()")


def _moved(x: Tensor, args: tuple[t.Any, ...], kwargs: dict[str, t.Any]) -> Tensor:
    copy, layout = kwargs.pop("copy", False), None
    if args and isinstance(args[0], Tensor):
        device, dtype = args[0].device, args[0].dtype
    else:
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    device = CUDA if device is not None and device.type == "cuda" else device
    here = device is None or device.type == x.device.type
    if here and not copy and dtype in (None, x.dtype) and (layout is None or x.is_contiguous(memory_format=layout)):
        return x
    return _to(x, x.device if device is None else device, dtype, layout)


def _to(
    x: Tensor, device: torch.device, dtype: torch.dtype | None, layout: torch.memory_format | None = None
) -> Tensor:
    return aten._to_copy(x, dtype=dtype or x.dtype, device=device, memory_format=layout)


def _where() -> str:
    """The line of ours that is being run."""
    frame: t.Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return f"{Path(frame.f_code.co_filename).relative_to(HOME)}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


WAITS = {  # for what the processor has to know: the value of a result, or its shape
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "repeat_interleave", "multinomial"),
    *("_unique2", "unique_dim", "unique_consecutive", "bincount", "histc"),
    *("_linalg_check_errors", "_linalg_eigh", "linalg_cholesky_ex", "_linalg_solve_ex", "linalg_qr", "_linalg_svd"),
}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}  # takes indices of main memory, too
ANY_DEVICE = {"copy_", "_to_copy", "_copy_from", "_local_scalar_dense"}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "addmv", "mv", "dot", "vdot"}
NO_KERNEL = {
    *(
        "detach",
        "alias",
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "permute",
        "expand",
        "as_strided",
        "select",
        "slice",
    ),
    *("unsqueeze", "squeeze", "split", "split_with_sizes", "unbind", "diagonal", "unfold", "narrow", "view_as_real"),
    *("lift_fresh", "_reshape_alias", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
}


def _tensors(tree: t.Any) -> list[Tensor]:
    """Those among an operation's arguments, which nest in lists only; torch's own tree_iter takes ten times longer."""
    if isinstance(tree, Tensor):
        return [tree]
    return [x for part in tree for x in _tensors(part)] if isinstance(tree, (tuple, list)) else []


def _mapped(change: t.Callable[[Tensor], Tensor], tree: t.Any) -> t.Any:
    if isinstance(tree, Tensor):
        return change(tree)
    return type(tree)([_mapped(change, x) for x in tree]) if isinstance(tree, (tuple, list)) else tree


def _of_memory(tree: t.Any) -> list[Tensor]:
    return [x for x in _tensors(tree) if not isinstance(x, Pretend)]


class Seen:
    """What was done on the device, counted."""

    def __init__(self) -> None:
        self.waits: collections.Counter[tuple[str, str]] = collections.Counter()  # by operation and line
        self.uploads: collections.Counter[tuple[str, str]] = collections.Counter()
        self.downloads: collections.Counter[tuple[str, str]] = collections.Counter()
        self.kernels: collections.Counter[str] = collections.Counter()


class _Watching(TorchDispatchMode):
    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen
        self.backward_on_device = 0
        self.random = torch.Generator().manual_seed(67280421310721).get_state()  # of the device

    def __torch_dispatch__(self, func: t.Any, types: t.Any, args: t.Any = (), kwargs: t.Any = None) -> t.Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        given = _tensors([args, *kwargs.values()])
        ours = [x for x in given if isinstance(x, Pretend)]
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked)
        if self.backward_on_device and (ours or not given):
            asked = None if ours else CUDA  # autograd in C++ takes our tensors for the processor's
        on_device = bool(ours) if asked is None else asked.type == "cuda"
        if on_device and asked is not None and "device" in kwargs:
            kwargs["device"] = CPU
        if not ours and not on_device:
            return func(*args, **kwargs)
        _check(func, name, args, kwargs, given, ours)
        self._count(name, args, on_device)
        wrapped = {id(x.held): x for x in ours}
        bare = [
            _mapped(lambda x: x.held if isinstance(x, Pretend) else x, tree) for tree in (args, list(kwargs.values()))
        ]
        draws = self._own_random_state() if torch.Tag.nondeterministic_seeded in func.tags else contextlib.nullcontext()
        with draws:
            out = func(*bare[0], **dict(zip(kwargs, bare[1])))
        if any(x.shape != x.held.shape or x.stride() != x.held.stride() for x in ours):
            raise NotImplementedError(f"{func} changed a shape in place ({_where()}): the pretence does not follow")

        def wrap(x: Tensor) -> Tensor:
            if id(x) in wrapped:
                return wrapped[id(x)]
            return Pretend(x) if on_device else x

        return _mapped(wrap, out)

    def _count(self, name: str, args: t.Any, on_device: bool) -> None:
        seen = self.seen
        if name in WAITS:
            seen.waits[name, _where()] += 1
        if name in INDEXED:
            if any(x.dtype in (torch.bool, torch.uint8) for x in _tensors(args[1])):
                seen.waits[f"{name} by a mask", _where()] += 1
            seen.uploads.update([(f"indices of {name}", _where()) for _ in _of_memory(args[1])])
        if name in ("_to_copy", "copy_"):
            source = isinstance(args[0] if name == "_to_copy" else args[1], Pretend)
            target = on_device if name == "_to_copy" else isinstance(args[0], Pretend)
            if source != target:
                (seen.uploads if target else seen.downloads)[name, _where()] += 1
        if name not in NO_KERNEL:
            seen.kernels[name] += 1

    @contextlib.contextmanager
    def _own_random_state(self) -> t.Iterator[None]:
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(self.random)
        try:
            yield
        finally:
            self.random = torch.default_generator.get_state()
            torch.default_generator.set_state(before)


def _check(func: t.Any, name: str, args: t.Any, kwargs: t.Any, given: list[Tensor], ours: list[Pretend]) -> None:
    """Raise DeviceError for an operation on the device that CUDA would refuse."""
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type == "cpu":
        raise DeviceError(f"a processor's generator for a draw on the device: {func} at {_where()}")
    if name.startswith(("_fused_adam", "_fused_sgd")):
        for together in zip(*[tensors for tensors in args[:4] if tensors]):
            strides = [[step for step, size in zip(x.stride(), x.shape) if size > 1] for x in together]
            if any(other != strides[0] for other in strides):  # CUDA compares those of single places, too
                raise DeviceError(f"weight, gradient and moments have the layouts {strides}: {func} at {_where()}")
    if not ours or name in ANY_DEVICE:
        return
    indexed, first = name in INDEXED and isinstance(given[0], Pretend), given[0]
    strangers = _of_memory((args[0], args[2:]) if indexed else given)
    if indexed or torch.Tag.pointwise in func.tags or name in ("where", "lerp", "fill_", "masked_fill", "masked_fill_"):
        strangers = [x for x in strangers if x.ndim or (func._schema.is_mutable and x is first)]  # numbers may
    if strangers:
        shapes = [tuple(x.shape) for x in strangers]
        raise DeviceError(f"not on the same device: {func} meets tensors {shapes} of the processor at {_where()}")
    if name in PRODUCTS and not (ours[0].is_floating_point() or ours[0].is_complex()):
        raise DeviceError(f"no product of {ours[0].dtype} on CUDA: {func} at {_where()}")
    if name == "_int_mm":
        (m, k), (_, n) = args[0].shape, args[1].shape
        if m <= 16 or k % 8 or n % 8:
            raise DeviceError(f"{func} wants over 16 rows, multiples of 8; got {m}, {k}, {n} at {_where()}")


class _Made(TorchFunctionMode):
    """What a dispatch mode does not see: torch.tensor(..., device="cuda") is made in main memory and copied; one_hot
    makes numbers in C++ where it takes its argument to lie."""

    def __torch_function__(self, func: t.Any, types: t.Any, args: t.Any = (), kwargs: t.Any = None) -> t.Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            kwargs.pop("device")
            return _moved(func(*args, **kwargs), (CUDA,), {})
        kwargs.pop("pin_memory", None)  # there is nothing to pin it for
        if func is Tensor.cuda:
            return _moved(args[0], (CUDA,), {})
        if func is Tensor.to and not isinstance(args[0], Pretend) and not isinstance((args[1:] or (None,))[0], Tensor):
            device = torch._C._nn._parse_to(*args[1:], **{k: v for k, v in kwargs.items() if k != "copy"})[0]
            if device is not None and device.type == "cuda":  # C++ asks a guard, which is not there, for its index
                return _moved(args[0], args[1:], kwargs)
        if func is torch.nn.functional.one_hot and isinstance(args[0], Pretend):
            return _one_hot(*args, **kwargs)
        return func(*args, **kwargs)


def _one_hot(index: Tensor, num_classes: int = -1) -> Tensor:
    classes = int(index.max()) + 1 if num_classes < 0 else num_classes
    return index.new_zeros(*index.shape, classes).scatter_(-1, index.unsqueeze(-1), 1)


@contextlib.contextmanager
def pretend_gpu(gpus: int = 1, memory: int = 80 * 2**30) -> t.Iterator[Seen]:
    """Inside, torch.cuda says that there are GPUs, and tensors on cuda:0 can be made and used."""
    seen = Seen()
    watching = _Watching(seen)

    def seed(value: int) -> None:
        watching.random = torch.Generator().manual_seed(value).get_state()

    def set_state(state: Tensor, device: t.Any = "cuda") -> None:
        watching.random = state.clone()

    run_backward = torch.autograd._engine_run_backward

    def backward(outputs: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        on_device = isinstance(outputs[0], Pretend)
        watching.backward_on_device += on_device
        try:
            return run_backward(outputs, *args, **kwargs)
        finally:
            watching.backward_on_device -= on_device

    by_device = torch.optim.Optimizer._group_tensors_by_device_and_dtype

    def grouped(lists: t.Any, with_indices: bool = False) -> t.Any:
        found = by_device(lists, with_indices)
        on_device = any(isinstance(x, Pretend) for x in lists[0])
        return {((CUDA, dtype) if on_device else (device, dtype)): group for (device, dtype), group in found.items()}

    answers: dict[str, t.Any] = {
        "is_available": lambda: True,
        "device_count": lambda: gpus,
        "current_device": lambda: 0,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "pretended GPU",
        "mem_get_info": lambda device=None: (memory, memory),
        "synchronize": lambda device=None: None,
        "Event": mock.Mock,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "get_rng_state": lambda device="cuda": watching.random.clone(),
        "set_rng_state": set_state,
    }
    with contextlib.ExitStack() as until:
        for name, answer in answers.items():
            until.enter_context(mock.patch.object(torch.cuda, name, answer))
        until.enter_context(mock.patch("torch.cuda.default_generators", [mock.Mock(manual_seed=seed)]))
        until.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", backward))
        until.enter_context(
            mock.patch.object(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(grouped))
        )
        until.callback(torch._C._set_cudnn_enabled, torch._C._get_cudnn_enabled())
        torch._C._set_cudnn_enabled(False)  # else composites name cuDNN's own operations
        until.callback(
            torch.__future__.set_overwrite_module_params_on_conversion,
            torch.__future__.get_overwrite_module_params_on_conversion(),
        )
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # .data would keep the class of a parameter
        autocast = torch.autocast
        until.enter_context(mock.patch.object(torch, "autocast", lambda device, *a, **k: autocast("cpu", *a, **k)))
        until.enter_context(_Made())
        until.enter_context(watching)
        yield seen
