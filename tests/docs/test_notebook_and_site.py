"""The notebook runs and agrees with the command line; the site is built without a warning."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import data
from snippets import ROOT, check_python

NOTEBOOK = ROOT / "examples/experiment.ipynb"
DEMO = ["--seed", 6, "--scenes", 300, "--queries", 7, "--methods", "none,first,pointwise"]
TELL = """
import json
print(json.dumps([result.to_dict(), scores.to_dict(), compared.to_dict()]))
"""


def test_the_notebook_holds_no_outputs_and_its_imports_exist() -> None:
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            check_python("".join(cell["source"]))


@pytest.mark.slow
def test_the_notebook_shows_the_figures_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(TELL))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [c for c in notebook.cells if c.cell_type == "code"]
    for cell in shown[:4]:
        assert "<table" in cell.outputs[-1]["data"]["text/html"]
    evaluated, scored, compared = json.loads(shown[-1].outputs[-1]["text"])

    monkeypatch.chdir(tmp_path)
    same = data("eval", "demo", *DEMO, "--chat", "bundled", "--runs", "again")
    for name, row in same["methods"].items():
        for metric in ("nDCG@10", "P@1", "R@20"):
            assert evaluated["methods"][name][metric] == row[metric]
    qrels = "again/qrels.txt"
    told = data("score", "again/pointwise.trec", "--qrels", qrels, "--metrics", "nDCG@10,RR,R@20")
    assert told["metrics"] == scored["metrics"]
    told = data(
        "compare", "none=again/none.trec", "pointwise=again/pointwise.trec",
        "--qrels", qrels, "--metrics", "nDCG@10",
    )  # fmt: skip
    assert _figures(told) == _figures(compared)


def _figures(body: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k not in ("usage", "warnings")}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    page = (tmp_path / "site/methods/index.html").read_text("utf-8")
    assert 'id="cotrr"' in page
    for file in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', file.read_text("utf-8")
        )
        assert loaded == [], file
