"""What every benchmark must do: read its files, name what is right, and score the right answers highest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from benchmark_samples import MAKERS
from contract_specs import contract_specs

from mmrerank import registry
from mmrerank.benchmark import Answer, Benchmark, Ranked
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation import tasks

FOREIGN = contract_specs("benchmark")
NAMES = [n.replace("_", "-") for n in registry.names("benchmark")]
READS = [n for n in NAMES if n in MAKERS or n in FOREIGN]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_says_what_it_is(name: str) -> None:
    found = tasks.benchmark_of(name)
    assert isinstance(found, Benchmark)
    assert found.SPLITS
    options = found.Options()
    assert dataclasses.is_dataclass(options)
    assert registry.about("benchmark", name.replace("-", "_"))


def test_every_plug_in_that_reads_files_is_covered() -> None:
    makes_its_own = {"demo"}
    assert set(NAMES) - set(READS) <= makes_its_own


def _ordered(judged: Mapping[str, int], sign: int) -> Ranked:
    ids = sorted(judged, key=lambda d: sign * judged[d])
    return Ranked(ids, [float(-n) for n in range(len(ids))])


@pytest.mark.parametrize("name", READS)
def test_the_right_answers_score_highest(name: str, tmp_path: Path) -> None:
    if name in FOREIGN:
        data, split = Path(FOREIGN[name]), None
    else:
        MAKERS[name](tmp_path)
        data, split = tmp_path, None
    task = tasks.load_task(name, data, split=split)
    assert (task.benchmark, bool(task.queries)) == (name, True)
    if not task.qrels:
        return
    best = {q: _ordered(judged, -1) for q, judged in task.qrels.items()}
    none = {q: _ordered(judged, 1) for q, judged in task.qrels.items()}
    high, low = (
        tasks.score(task, [Answer(path=tag, kind="run", rows=rows)])
        for tag, rows in (("best", best), ("none", none))
    )
    assert high.metrics.keys() == low.metrics.keys()
    assert high.metrics
    for key, measured in high.metrics.items():
        worse = low.metrics[key].value
        better = measured.value <= worse if measured.lower_is_better else measured.value >= worse
        assert better, key


@pytest.mark.parametrize("name", READS)
def test_missing_files_and_wrong_options_are_explained(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        tasks.load_task(name, tmp_path / "nowhere")
    with pytest.raises(InputError):
        tasks.load_task(name, tmp_path)
    with pytest.raises(UsageError, match="nonesuch"):
        tasks.load_task(name, tmp_path, options={"nonesuch": 1})
    with pytest.raises(UsageError, match="has no split"):
        tasks.load_task(name, tmp_path, split="nonesuch")
