"""Score a run against qrels.

Any TREC run, any metric; no benchmark is known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrerank.cli.console import Output, emit, say, table_console, working
from mmrerank.cli.options import OutputFlag, PerQueryFlag
from mmrerank.errors import DEGRADED_EXIT_CODE

EXAMPLE = """mmrerank score runs/cotrr.trec --qrels runs/qrels.txt --metrics nDCG@10,RR,R@20
mmrerank score run.trec.gz --qrels qrels.txt --metrics INQUIRE_AP@50 --tie-bounds --output json
mmrerank score run.trec --qrels qrels.txt --metrics AP,RR --per-query"""


def score(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Six columns (TREC) or raw scores (.jsonl); .gz too.")
    ],
    qrels: Annotated[
        Path, typer.Option("--qrels", metavar="QRELS", help="What is right: qid 0 docno grade.")
    ],
    metrics: Annotated[
        str,
        typer.Option("--metrics", metavar="LIST", help="Names of `mmrerank list metrics`, commas between."),
    ] = "nDCG@10,AP,RR,P@1,R@10",
    tie_bounds: Annotated[
        bool,
        typer.Option(
            "--tie-bounds", help="Also the value under the worst and the best order of equal scores."
        ),
    ] = False,
    per_query: PerQueryFlag = False,
    output: OutputFlag = Output.text,
) -> None:
    """Score a run against qrels.

    Every query of the qrels counts: "value" takes one that the run lacks for 0, "value_scored" leaves it
    out. Each metric says how it orders equal scores.
    """
    import mmrerank
    from mmrerank.evaluation.compare.rendering import terminal
    from mmrerank.evaluation.per_query import lines

    with working():
        found = mmrerank.score(run, qrels, metrics, tie_bounds=tie_bounds)
    if output is Output.json:
        emit(found.to_dict(by_query=per_query))
    else:
        for line in lines(found.scores) if per_query else ():
            typer.echo(line)
        for table in found.tables:
            table_console().print(terminal(table))
        for warning in found.warnings:
            say(f"warning: {warning}")
    if found.scores.failed:
        raise typer.Exit(DEGRADED_EXIT_CODE)


COMMAND = score
