"""open_clip without the packages that it imports and few models use: torchvision, timm and transformers.

Importing open_clip costs three times what importing torch does, nearly all of it for those three. open_clip
itself copes without timm and transformers, and needs torchvision only to transform images and to train. So
its files are loaded here a second time, under another name, with an ``import`` of their own: timm and
transformers are absent in it, torchvision is a placeholder. Nothing else in the process sees any of that. A
placeholder that is used raises. `whole` is the real thing, for the models that need it.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import logging
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from operator import attrgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

_log = logging.getLogger(__name__)
_ABSENT = frozenset({"timm", "transformers", "horovod"})
_TEXT, _IMAGES = "_mmrerank_open_clip", "_mmrerank_open_clip_images"
_NAMES = {
    "factory": ("create_model", "get_tokenizer", "list_models", "get_model_config"),
    "model": ("get_model_preprocess_cfg",),
    "pretrained": ("list_pretrained_tags_by_model", "get_pretrained_cfg", "download_pretrained"),
    "transform": ("PreprocessCfg", "merge_preprocess_dict"),
}


def part() -> Any:
    """The functions of open_clip that loading a model takes, of the whole where that is imported anyway."""
    if "open_clip" in sys.modules:
        return whole()
    try:
        return _functions(_TEXT)
    except Exception as error:  # another open_clip than the ones this was written for
        _log.warning(
            "this open_clip cannot be imported in part (%s: %s); importing all of it takes longer",
            type(error).__name__, error,
        )  # fmt: skip
        return whole()


def whole() -> Any:
    """The same functions of open_clip with all that it imports."""
    return _functions("open_clip")


def suffices(config: dict[str, Any]) -> bool:
    """Whether `part` can build a model of this ``model_cfg``: no foreign tower, no text decoder."""
    towers = (config["vision_cfg"].get("timm_model_name"), config["text_cfg"].get("hf_model_name"))
    return not any(towers) and "multimodal_cfg" not in config


def image_transform(preprocess: Any) -> Any:
    """open_clip's image transform for a ``PreprocessCfg``. Imports torchvision."""
    package = "open_clip" if "open_clip" in sys.modules else _IMAGES
    return _module(package, "transform").image_transform_v2(preprocess, is_train=False)


def _functions(package: str) -> Any:
    found = {n: vars(_module(package, file))[n] for file, names in _NAMES.items() for n in names}
    return SimpleNamespace(**found)


def _module(package: str, name: str) -> ModuleType:
    if package != "open_clip" and package not in sys.modules:
        home = ModuleType(package)
        home.__path__ = [str(Path(str(importlib.util.find_spec("open_clip").origin)).parent)]  # type: ignore[union-attr]
        sys.modules[package] = home
        sys.meta_path.insert(0, _Finder())
    return importlib.import_module(f"{package}.{name}")


class _Finder:
    """Finds the files of open_clip for its second names."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package not in (_TEXT, _IMAGES) or not rest:
            return None
        file = str(Path(path[0], f"{rest}.py"))
        return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file))


class _Loader(SourceFileLoader):
    """Runs a file with an ``import`` of its own; what it imports later, in its functions, it really gets."""

    def exec_module(self, module: ModuleType) -> None:
        running = True

        def limited(name: str, *args: Any) -> Any:
            top = name.partition(".")[0]
            if running and top in _ABSENT:
                raise ImportError(f"{top} is left out here")
            if running and top == "torchvision" and module.__name__.startswith(f"{_TEXT}."):
                return _Placeholder(name if args[2:3] and args[2] else top)
            if running and top == "huggingface_hub":
                return _Later(name)
            return builtins.__import__(name, *args)

        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": limited}
        try:
            super().exec_module(module)
        finally:
            running = False


class _Later(ModuleType):
    """Stands for a module of functions, which is imported when one of them is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def later(*args: Any, **kwargs: Any) -> Any:
            # the module may make its names when they are asked for
            return attrgetter(name)(importlib.import_module(self.__name__))(*args, **kwargs)

        return later


class _Placeholder(ModuleType):
    """Stands for a module; what is called in it raises."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].islower():
            return _Placeholder(f"{self.__name__}.{name}")
        return _Class(name, (), {"__module__": self.__name__})


class _Class(type):
    """Stands for a class, which can be derived from, and for its constants; making one raises."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{cls.__module__}.{cls.__name__} is left out here")
