"""Modules from safetensors files of strangers: sizes are compared before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmembed.errors import CorruptError, MmembedError

M = TypeVar("M", bound=nn.Module)


def read_module(build: Callable[[], M], path: Path, elsewhere: tuple[str, ...] = ()) -> M:
    """Build a module and give it the weights of a file.

    It is built without memory first: a configuration whose sizes are not those of the file, however
    large they are, costs nothing.

    Args:
        build: makes the module, the same each time, of values that need no reading back.
        path: what `safetensors` wrote of its `state_dict`.
        elsewhere: how names of weights begin that `build` reads from elsewhere.

    Raises:
        CorruptError: the file is missing, damaged, or of another module.
    """
    check_file(path)
    try:
        with torch.device("meta"), _NoValues():
            expected = build().state_dict()
    except MmembedError:
        raise
    except Exception as error:  # of sizes that no module can have
        what = str(error).partition("\n")[0]
        raise CorruptError(f"{path}: of a module that cannot be built: {what}") from None
    _compare(_without(expected, elsewhere), path)
    module = build()
    load_weights(module, path, elsewhere)
    return module


class _NoValues(TorchFunctionMode):
    """Weights without memory need no initial values; to compute them, torch would import its
    compiler, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__ and "tensor" in given:
            return given["tensor"]
        if func in (Tensor.mul, Tensor.log):  # 0.02 * torch.randn(D), torch.tensor([...]).log()
            return args[0]
        return (torch.empty if func is torch.randn else func)(*args, **given)


def load_weights(module: nn.Module, path: Path, elsewhere: tuple[str, ...] = ()) -> None:
    """Give a module the weights of a file, but for those that it has from elsewhere.

    Raises:
        CorruptError: the file is missing, damaged, of another module, or holds values that are not
            finite where the module's own are.
    """
    check_file(path)
    own = _without(module.state_dict(), elsewhere)
    _compare(own, path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all() and own[name].isfinite().all():
            raise CorruptError(f"{path}: {name} holds values that are not finite")
    module.load_state_dict(tensors, strict=not elsewhere)  # names are compared above


def _without(state: Mapping[str, Tensor], begins: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(begins)}


def check_file(path: Path) -> None:
    """Raise `CorruptError` where there is no file, or something that is none, such as a pipe."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "is missing"
        raise CorruptError(f"{path}: {what}")


def _compare(expected: Mapping[str, Tensor], path: Path) -> None:
    """Names, shapes and kinds of numbers, as the head of the file has them."""
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
            kinds = {name: str(part.get_dtype()) for name, part in found.items()}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None
    for name in sorted({*expected, *shapes}):
        if name not in shapes:
            raise CorruptError(f"{path}: has no {name}")
        if name not in expected:
            raise CorruptError(f"{path}: has {name!r}, which the configuration does not know")
        ours = tuple(expected[name].shape)
        if ours != shapes[name]:
            raise CorruptError(
                f"{path}: {name} is {shapes[name]}, by the configuration it is {ours}"
            )
        floats = kinds[name].startswith(("F", "BF"))
        if floats != expected[name].is_floating_point():
            raise CorruptError(f"{path}: {name} holds {kinds[name]}, not {expected[name].dtype}")


def _damaged(path: Path, error: Exception) -> CorruptError:
    return CorruptError(f"{path}: not usable weights: {str(error).partition(chr(10))[0]}")
