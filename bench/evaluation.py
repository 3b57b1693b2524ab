"""What scoring a large run costs: CPU seconds and peak memory of `mmrerank score`, in a process of its own.

    python bench/evaluation.py [--queries 20000] [--candidates 100]

Prints one JSON object. CPU seconds are user and system time of the child, start of Python included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def write(folder: Path, queries: int, candidates: int) -> tuple[Path, Path]:
    """A run with some tied scores, and qrels with about eight right documents a query."""
    rng = np.random.default_rng(0)
    run, qrels = folder / "run.trec", folder / "qrels.txt"
    with run.open("w") as runs, qrels.open("w") as judged:
        for q in range(queries):
            docs = rng.choice(1_000_000, candidates, replace=False)
            scores = np.sort(np.round(rng.random(candidates), 3))[::-1]
            runs.writelines(
                f"q{q} Q0 img_{d:07d}.jpg {n} {s:.3f} bench\n"
                for n, (d, s) in enumerate(zip(docs, scores, strict=True), start=1)
            )
            right = {*rng.choice(docs, 6, replace=False), *rng.choice(1_000_000, 2, replace=False)}
            judged.writelines(f"q{q} 0 img_{d:07d}.jpg {rng.integers(1, 4)}\n" for d in right)
    return run, qrels


def main() -> None:
    """Measures scoring with one cheap metric, and with every metric at its usual cut-offs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--candidates", type=int, default=100)
    args = parser.parse_args()
    from mmrerank.evaluation.measure.metrics import METRICS

    every = []
    for name, metric in METRICS.items():
        every += [f"{name}@{k}" for k in (1, 5, 10, 50)] if metric.cutoff != "absent" else []
        every += [name] if metric.cutoff != "needed" else []
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run, qrels = write(Path(folder), args.queries, args.candidates)
        for label, names in (("one metric", ["MRR"]), (f"{len(every)} metrics", every)):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [
                sys.executable, "-c", _PROBE, "score", str(run), "--qrels", str(qrels),
                "--metrics", ",".join(names), "--output", "json",
            ]  # fmt: skip
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found[label] = {
                "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
                "peak_mb": round(int(done.stderr.split()[-1]) / 1024),
                "metrics": len(json.loads(done.stdout)["metrics"]),
            }
    print(json.dumps({"queries": args.queries, "candidates": args.candidates, **found}))


_PROBE = """
import resource, sys
from mmrerank.cli.main import cli
try:
    cli(prog_name="mmrerank")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


if __name__ == "__main__":
    main()
