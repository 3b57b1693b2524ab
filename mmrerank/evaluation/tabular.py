"""What a result of an evaluation can show: tables as text, HTML and pandas, and plain data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mmrerank.errors import MissingExtraError
from mmrerank.evaluation.compare.rendering import Table, html, plain


class Tabular:
    """A result with tables. A subclass says which (`tables`), and what their figures are (`records`)."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """What people see, one table after the other."""
        raise NotImplementedError

    @property
    def records(self) -> Sequence[dict[str, Any]]:
        """The figures as rows of plain data, unrounded."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON: what the command line prints."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """`records` as a ``pandas.DataFrame``. Raises `MissingExtraError` where pandas is not installed."""
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise MissingExtraError("to_pandas() needs pandas; pip install pandas") from error
        return pandas.DataFrame(list(self.records))

    def _repr_html_(self) -> str:
        return "".join(html(t) for t in self.tables)

    def __str__(self) -> str:
        return "\n".join(plain(t) for t in self.tables)
