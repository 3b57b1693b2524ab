"""Opens the text tower that an index keeps, where it is of the very model that was named.

The index is data, and may be somebody else's: its tower is used where its hashes are right, and where the model
that the user or the index names is the one that the index was made with. A folder or file of this machine must
be named by the user, and hold the files that it held when the tower was made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmrerank import catalog
from mmrerank.embed import _text_tower
from mmrerank.errors import ModelError
from mmrerank.index import texts
from mmrerank.index.manifest import Manifest
from mmrerank.ports import Embedder

_PLUGIN = "open_clip"


def kept_tower(facts: Manifest, index: Path, named: str, whole: Callable[[], Embedder]) -> Embedder | None:
    """The tower of ``index`` as an embedder of words, None where there is none that can be used.

    ``named`` is the model that the user named, empty for the one that the index remembers; ``whole`` opens it.
    """
    if not texts.size(facts):
        return None
    card = catalog.resolve("embedder", (named or facts.embedder).strip())
    plugin, _, rest = card.spec.partition(":")
    if plugin != _PLUGIN or (not named and catalog.is_local("embedder", facts.embedder)):
        return None
    try:
        name, place = _text_tower.named(rest)
        made_by = catalog.resolve("embedder", facts.embedder).spec
        if f"{_PLUGIN}:{name}" != f"{_PLUGIN}:{_text_tower.named(made_by.partition(':')[2])[0]}":
            return None
        files = texts.read(index, facts)
        known = _text_tower.facts_of(files[_text_tower.FACTS])
        same = (known.fingerprint, known.dim) == (facts.fingerprint, facts.dim)
        if not same or known.weights != _text_tower.weights_of(place):
            return None
        return _text_tower.TextTower(
            files, known, spec=facts.embedder, domain=card.domain or known.domain, whole=whole
        )
    except (KeyError, OSError, ModelError):  # the whole model says what is wrong with it
        return None
