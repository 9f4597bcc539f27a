"""diffusers and transformers imported without the packages that only features unused here would need.

For one UNet class diffusers imports all of PEFT and torch's compiler, and for one text encoder transformers imports
torch's sharded tensors and torchvision: half of what `generate` waited for. `DEFERRED` lists, name by name, what their
modules take from those packages and use later or never. Within `lean_imports` such a name is imported as a stand-in
that gets the real thing as soon as it is used; asking for any name that is not in the list imports the package at
once. So another release of the libraries costs at most the time that was saved:
`tests/diffusion/test_lean_imports.py` and `tests/cli/test_what_is_imported.py` then say what changed.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from dbcli.garbage import collect_as_usual, collect_rarely

COMPILER = "torch._dynamo"
DEFERRED: dict[str, frozenset[str]] = {
    # Three that decorate; the last is a context manager around a mask.
    COMPILER: frozenset({"allow_in_graph", "assume_constant_result", "disable"}),
    f"{COMPILER}._trace_wrapped_higher_order_op": frozenset({"TransformGetItemToIndex"}),
    f"{COMPILER}.utils": frozenset({"is_compile_supported"}),
    # Of diffusers' layerwise casting: called, and looked for by isinstance.
    "peft": frozenset(),
    "peft.helpers": frozenset({"disable_input_dtype_casting"}),
    "peft.tuners": frozenset(),
    "peft.tuners.tuners_utils": frozenset({"BaseTunerLayer"}),
    # Of transformers' loading on several GPUs.
    "torch.distributed._composable.fsdp": frozenset({"fully_shard"}),
    "torch.distributed.checkpoint": frozenset(),
    "torch.distributed.checkpoint.hf_storage": frozenset({"HuggingFaceStorageReader", "HuggingFaceStorageWriter"}),
    "torch.distributed.fsdp": frozenset({"CPUOffloadPolicy", "FullyShardedDataParallel", "MixedPrecisionPolicy"}),
    # A network that loads two vision models of transformers.
    "diffusers.models.autoencoders.autoencoder_rae": frozenset({"AutoencoderRAE"}),
}
ROOTS = frozenset(name for name in DEFERRED if name.rpartition(".")[0] not in DEFERRED)

# So many come with a library. Where none came, what is in memory may become garbage one day.
MANY_MODULES = 100
# What the import system and `inspect` look for in any module, and take an AttributeError for an answer.
SHAPE = frozenset({"__path__", "__file__", "__cached__", "__wrapped__"})

# Marks for the compiler from before it was imported: the decorator's name, and what it was put on.
_marks: list[tuple[str, Any]] = []


@contextmanager
def lean_imports() -> Iterator[None]:
    """Imports inside leave out what `DEFERRED` lists; imports after it find the real packages.

    Python looks for garbage rarely meanwhile, and afterwards no longer in what was imported.
    """
    before, threshold = len(sys.modules), gc.get_threshold()
    collect_rarely()
    try:
        with _deferring(ROOTS):
            yield
    finally:
        if len(sys.modules) > before + MANY_MODULES:
            collect_as_usual()
        else:
            gc.set_threshold(*threshold)


@contextmanager
def without_peft() -> Iterator[None]:
    """Where no layer is adapted, a pass of a UNet of diffusers does not import PEFT only to find that out."""
    if "peft" in sys.modules:
        yield
        return
    with _deferring(frozenset({"peft"})):
        yield


@contextmanager
def _deferring(roots: frozenset[str]) -> Iterator[None]:
    finder = _Finder(roots)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _remove_stand_ins()


def settle_compiler() -> None:
    """Tells torch's compiler what was asked of it before it was imported; to be called before anything is compiled."""
    while _marks:
        name, marked = _marks.pop()
        getattr(_real(COMPILER), name)(marked)


class _StandIn(ModuleType):
    """A module that is not imported yet."""

    def __getattr__(self, name: str) -> Any:
        if name in SHAPE:
            raise AttributeError(name)
        if name not in DEFERRED[self.__name__]:
            return getattr(_real(self.__name__), name)
        if self.__name__ == COMPILER:
            return _disable if name == "disable" else partial(_mark, name)
        return _Name(self.__name__, name)


class _Name:
    """What a module that is not imported yet will have under a name."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _get(self) -> Any:
        return getattr(_real(self._module), self._name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._get()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._get(),)

    def __instancecheck__(self, instance: Any) -> bool:
        # Of a class that was never imported there is no instance.
        return _is_real(self._module) and isinstance(instance, self._get())

    def __subclasscheck__(self, subclass: type) -> bool:
        return _is_real(self._module) and issubclass(subclass, self._get())


def _mark(name: str, marked: Any) -> Any:
    _marks.append((name, marked))
    return marked


def _disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
    """`torch._dynamo.disable` of a function, which is the function itself until the compiler is imported."""
    if function is None:
        return partial(_disable, recursive=recursive, **options)
    disabled: list[Callable[..., Any]] = []

    @wraps(function)
    def whole(*args: Any, **arguments: Any) -> Any:
        if not _is_real(COMPILER):
            return function(*args, **arguments)
        if not disabled:
            disabled.append(_real(COMPILER).disable(function, recursive, **options))
        return disabled[0](*args, **arguments)

    return whole


class _Finder(MetaPathFinder, Loader):
    """Finds stand-ins for the modules of `DEFERRED` whose package is not imported yet."""

    def __init__(self, roots: frozenset[str]) -> None:
        self._roots = roots

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root = next((one for one in self._roots if f"{fullname}.".startswith(f"{one}.")), None)
        if root is None or _is_real(root):
            return None
        found = PathFinder.find_spec(fullname, path)
        if fullname not in DEFERRED or found is None:
            _real(root)
            return None
        spec = ModuleSpec(fullname, self, is_package=True)
        spec.submodule_search_locations = found.submodule_search_locations or []
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def _is_real(name: str) -> bool:
    return name in sys.modules and not isinstance(sys.modules[name], _StandIn)


def _real(name: str) -> Any:
    """A module itself, imported now if it is not yet, in place of the stand-ins of its package."""
    if not _is_real(name):
        # A package that is really imported gets nothing but real ones.
        _remove_stand_ins()
        finders = [one for one in sys.meta_path if isinstance(one, _Finder)]
        sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Finder)]
        try:
            import_module(name)
        finally:
            sys.meta_path[:0] = finders
    return sys.modules[name]


def _remove_stand_ins() -> None:
    # Not all of the modules: a pass of a UNet comes by here, and there are thousands.
    for name in DEFERRED:
        stand_in = sys.modules.get(name)
        if not isinstance(stand_in, _StandIn):
            continue
        del sys.modules[name]
        parent, _, child = name.rpartition(".")
        if parent in sys.modules and vars(sys.modules[parent]).get(child) is stand_in:
            delattr(sys.modules[parent], child)
