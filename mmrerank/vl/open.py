"""Opens a checkpoint as whatever runs it: the fast path of Qwen-VL where it is one, else the path of any."""

from __future__ import annotations

from mmrerank.vl.features import FeatureStore
from mmrerank.vl.generic import AnyModel
from mmrerank.vl.load import MODEL_TYPES, load
from mmrerank.vl.local import LocalModel
from mmrerank.vl.qwen import QwenVL


def open_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    features: FeatureStore | None = None,
    trust_remote_code: bool = False,
) -> LocalModel:
    """Loads a folder or hub name of any model that answers messages.

    Arguments and errors as in `mmrerank.vl.load.load`; ``features`` keeps what was seen of images.

    >>> open_model("google/gemma-3-4b-it").abilities  # doctest: +SKIP
    """
    loaded = load(name, device=device, dtype=dtype, types=None, trust_remote_code=trust_remote_code)
    return (QwenVL if loaded.family in MODEL_TYPES else AnyModel)(loaded, features)
