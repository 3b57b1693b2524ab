"""Opens the text tower that an index keeps, where it is of the very model that was named.

The index is data, and may be somebody else's: its tower is used where its hashes are right, and where the
model that the user or the index names is the one that the index was made with. A folder or file of this
machine must be named by the user, and hold the files that it held when the tower was made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from mmrerank import catalog
from mmrerank.embed import text_tower
from mmrerank.errors import ImageIndexError, ModelError
from mmrerank.index import texts
from mmrerank.index.manifest import Manifest
from mmrerank.ports import Embedder

_PLUGIN = "open_clip"


def kept_tower(facts: Manifest, index: Path, named: str, whole: Callable[[], Embedder]) -> Embedder | None:
    """The tower of ``index`` as an embedder of words, None where there is none that can be used.

    ``named`` is what the user named, empty for the model that the index remembers; ``whole`` opens it.
    """
    if not texts.size(facts):
        return None
    card = catalog.resolve("embedder", (named or facts.embedder).strip())
    plugin, _, rest = card.spec.partition(":")
    if plugin != _PLUGIN or (not named and catalog.is_local("embedder", facts.embedder)):
        return None
    try:
        name, place = text_tower.named(rest)
        made_by = catalog.resolve("embedder", facts.embedder).spec
        if name != text_tower.named(made_by.partition(":")[2])[0]:
            return None
        files = texts.read(index, facts)
        known = text_tower.facts_of(files.get(text_tower.FACTS, b""))
        if (known.fingerprint, known.dim) != (facts.fingerprint, facts.dim):
            raise ModelError("it is of another model")
        if not text_tower.are_there(known.weights, place):
            return None  # and the files are compared with the index as those of any model
        domain = card.domain or known.domain
        return text_tower.TextTower(files, known, spec=facts.embedder, domain=domain, whole=whole)
    except (ImageIndexError, ModelError) as error:
        warnings.warn(
            f"the text tower in {index / texts.FOLDER} is not used: {error}. Delete that folder and index "
            "the source again: it is made anew", stacklevel=2,
        )  # fmt: skip
        return None
    except OSError:
        return None  # opening the model says what is wrong with its files
