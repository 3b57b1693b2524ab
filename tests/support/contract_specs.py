"""How contract tests name foreign plug-ins: ``MMRERANK_CONTRACT``, ``{kind: {name: spec}}`` in JSON.

A package runs them over its own plug-ins with that variable set; `tests/e2e/test_foreign_package.py` does.
"""

from __future__ import annotations

import json
import os


def contract_specs(kind: str) -> dict[str, str]:
    """Specs by plug-in name, such as ``{"parrot": "parrot:polly"}``."""
    found: dict[str, str] = json.loads(os.environ.get("MMRERANK_CONTRACT", "{}")).get(kind, {})
    return found
