"""The journal: nothing finished is lost or mixed up, whatever ends the process or fills the disk."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.experiment.journal import differences, opened

WORK = {"method": "m", "seed": 3, "options": {"top": 4, "deep": True}, "chat": {"digest": None}}
FIRST = {"a": {"order": ["1", "2"], "seconds": 0.1 + 0.2}}
SECOND: Mapping[str, Any] = {"b": {"order": ["\u0085é"]}, "c\n": {"order": []}, "\udcff": {"n": 1e-300}}


def write(path: Path, *additions: Mapping[str, Any], **options: Any) -> bytes:
    with opened(path, WORK, **options) as journal:
        for addition in additions:
            journal.add(addition)
    return path.read_bytes()


def read(path: Path) -> dict[str, Any]:
    with opened(path, WORK) as journal:
        return dict(journal.results)


def test_what_was_added_is_there_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/m.journal.jsonl"
    with opened(path, WORK) as journal:
        assert journal.results == {}
        journal.add(FIRST)
        journal.add(SECOND)
        assert journal.results == {**FIRST, **SECOND}
    assert read(path) == {**FIRST, **SECOND}
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert [line.get("query") for line in lines] == [None, "a", "b", "c\n", "\udcff"]
    assert [line.get("more") for line in lines] == [None, 0, 2, 1, 0]
    assert lines[0]["work"] == WORK


def test_a_result_may_be_given_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.journal.jsonl"
    write(path, FIRST, SECOND)
    write(path, {"a": {"order": []}})
    assert read(path) == {**SECOND, "a": {"order": []}}


def test_cut_off_at_any_byte(tmp_path: Path) -> None:
    """What was added together is there whole or not at all, and the rest can be added again."""
    path = tmp_path / "m.journal.jsonl"
    before = len(write(path, FIRST))
    whole = write(path, SECOND)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        found = read(path)
        assert found == (FIRST if end >= before else {})
        if end >= before:
            assert path.read_bytes() == whole[:before]
            assert write(path, SECOND) == whole
    path.write_bytes(whole[:before] + b"\0" * 999)  # what a power cut leaves of blocks never written
    assert write(path, SECOND) == whole
    path.write_bytes(whole[: before + 20] + b"\0\n")
    assert write(path, SECOND) == whole


def test_the_order_of_additions_means_nothing(tmp_path: Path) -> None:
    additions = [{str(n): {"order": [str(n)]}} for n in range(9)]
    whole = {k: v for a in additions for k, v in a.items()}
    random.Random(4).shuffle(additions)
    write(tmp_path / "m.journal.jsonl", *additions)
    assert read(tmp_path / "m.journal.jsonl") == whole


def test_other_work_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.journal.jsonl"
    before = write(path, FIRST)
    other = {**WORK, "seed": 4, "options": {"top": 5, "deep": True}, "chat": {"digest": "f" * 64}}
    with pytest.raises(UsageError) as told, opened(path, other):
        pass
    for text in (
        "seed was 3 and is 4", "options.top was 4 and is 5", "--fresh", str(path),
        "chat.digest was absent and is ffffffffffff...",
    ):  # fmt: skip
        assert text in str(told.value)
    assert "deep" not in str(told.value)
    assert path.read_bytes() == before
    with opened(path, other, fresh=True) as journal:
        assert not journal.results
    with pytest.raises(UsageError), opened(path, WORK):
        pass
    assert differences(WORK, WORK) == []
    assert differences(WORK, {**WORK, "new": True}) == ["new was absent and is True"]


def test_damage_in_the_middle_and_foreign_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "m.journal.jsonl"
    whole = write(path, FIRST, SECOND)
    lines = whole.split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:-3], *lines[2:]]))
    with pytest.raises(InputError, match="line 2 is damaged"):
        read(path)
    for other in (b"no journal", b'{"a": 1}\n', b"[]\n", b'{"journal": 99, "work": {}}\n', b"\xff\n"):
        path.write_bytes(other)
        with pytest.raises(InputError, match="is not a journal"):
            read(path)
        assert path.read_bytes() == other


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "m.journal.jsonl"
    command = (
        "import sys; from mmrerank.evaluation.experiment.journal import opened\n"
        "from pathlib import Path\n"
        "with opened(Path(sys.argv[1]), {}):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        for fresh in (False, True):
            with pytest.raises(InputError, match="another process"), opened(path, {}, fresh=fresh):
                pass
        other.kill()
    with opened(path, {}) as journal:  # the system let go of the dead one's lock
        journal.add(FIRST)
        with pytest.raises(InputError, match="another process"), opened(path, {}):
            pass


FULL = """
import resource, sys
from pathlib import Path
from mmrerank.errors import InputError
from mmrerank.evaluation.experiment.journal import opened
path, room = Path(sys.argv[1]), int(sys.argv[2])
with opened(path, {"w": 1}) as journal:
    journal.add({"first": {"x": "1" * 50}})
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    try:
        journal.add({"second": {"x": "2" * 5000}, "third": {"x": "3" * 5000}})
    except InputError as error:
        print(error)
    assert set(journal.results) == {"first"}
    assert path.stat().st_size == size
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.add({"fourth": {}})
"""


@pytest.mark.parametrize("room", [0, 100, 7000])
def test_a_full_disk_costs_only_what_did_not_fit(tmp_path: Path, room: int) -> None:
    path = tmp_path / "m.journal.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written: File too large" in done.stdout
    with opened(path, {"w": 1}) as journal:
        assert set(journal.results) == {"first", "fourth"}


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written"),
        opened(tmp_path / "file/m.journal.jsonl", WORK),
    ):
        pass
