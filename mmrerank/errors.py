"""Every error mmrerank raises on purpose, in one tree, with the exit code the command line ends on.

    MmrerankError            1  something of ours went wrong
    ├── UsageError           2  an argument, option, name or recipe key is wrong
    │   └── QueryError       2  a query is too large, or no text
    ├── InputError           3  a source, image, request or file cannot be used
    │   └── ImageError       3  one image cannot be decoded, or is refused
    │       └── TruncatedImageError  3  its file ends before its last pixel
    ├── ImageIndexError          4  an index is missing, foreign, damaged or busy
    │   └── MismatchError    4  the index was made with another embedder or preprocessing
    ├── ModelError           5  weights are missing, unreadable or not of the kind asked for
    │   └── CapabilityError  5  the backend cannot do what the method needs
    ├── ChatError            6  a language-model call failed (``retryable`` says whether again makes sense)
    │   ├── ReplyError       6  the model answered, but not in a form that says anything
    │   └── BudgetError      6  a question was not asked: what may be spent is spent
    ├── CancelledError     130  a ranking was stopped by who wanted it
    └── MissingExtraError    5  an optional package is not installed

Exit code 7 is not an error: the answer was printed, but some judgements failed and the first-stage order
stands there; or the index was brought up to date, but for images that could not be seen, or are too many to
be taken out. Each message names what was wrong, what is allowed, and where it helps the next command.
"""

from __future__ import annotations

import re
from typing import Literal

DEGRADED_EXIT_CODE = 7


DATA_ERRORS = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)
"""What odd data of others raises in code that takes it apart. Where one question's answer is read, they fail
that question and no other."""
LONGEST_MESSAGE = 1_000
"""Characters of the message of a failed call: it may quote what a server said, and servers say anything."""
_UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]+")


def in_short(error: BaseException, most: int = 200) -> str:
    """The kind and the words of an error that is not ours."""
    return one_line(f"{type(error).__name__}: {error}", most)


def one_line(text: str, most: int) -> str:
    """``text`` without control characters, direction marks and lone surrogates; ``most`` characters of it."""
    clean = _UNPRINTED.sub(" ", text[: most + 1])
    return clean if len(clean) <= most else f"{clean[: most - 3]}..."


class MmrerankError(Exception):
    """Root of the tree; ``exit_code`` is what the command line returns.

    >>> try:
    ...     raise InputError("there is no folder 'photos'")
    ... except MmrerankError as error:
    ...     print(error.exit_code, error)
    3 there is no folder 'photos'
    """

    exit_code = 1


class UsageError(MmrerankError):
    """An argument, option, plug-in name or configuration key is wrong."""

    exit_code = 2


class QueryError(UsageError, ValueError):
    """A query is larger than is allowed (`mmrerank.limits`), or holds what is no text."""


class CancelledError(MmrerankError):
    """A ranking was stopped by who wanted it; no further question was sent."""

    exit_code = 130


class InputError(MmrerankError):
    """A source, request or file cannot be used as it is."""

    exit_code = 3


class ImageError(InputError):
    """One image cannot be decoded, or was refused (too large, truncated, empty)."""


class TruncatedImageError(ImageError):
    """The file ends before the last pixel; `mmrerank.images.decode` can be told to take what there is."""


class ImageIndexError(MmrerankError):
    """An index is missing, damaged, foreign, of another version, or being written by somebody else."""

    exit_code = 4


class MismatchError(ImageIndexError):
    """The index holds vectors of another embedder or another preprocessing than the one offered."""


class ModelError(MmrerankError):
    """Weights are missing, unreadable, or not of the kind asked for."""

    exit_code = 5


class CapabilityError(ModelError):
    """A backend lacks a capability that the chosen method needs."""


class MissingExtraError(ModelError):
    """An optional package is needed; the message holds the command that installs it."""


FailureKind = Literal[
    "quota", "payment", "auth", "forbidden", "not_found", "unreachable", "web_page", "address", "no_images",
    "rate_limit", "timeout", "server", "too_large", "too_many_images", "image", "content_filter", "refusal",
    "context", "no_logprobs", "labels", "bad_request", "reply", "no_room", "budget", "other",
]  # fmt: skip
"""Why a call failed, for programs. ``address``: another model or another address answers. ``no_images``:
the model takes none. ``labels``: the model would rather say something else than one of the labels asked for.
``image``: this picture cannot be shown. ``no_room``: cut off before it said a word."""
SYSTEMIC: frozenset[FailureKind] = frozenset(
    {"quota", "payment", "auth", "forbidden", "not_found", "unreachable", "web_page", "address", "no_images"}
)
"""Kinds whose cause lies outside the question: the next question would fail alike."""
LASTING: frozenset[FailureKind] = frozenset({"rate_limit", "timeout", "server"})
"""Kinds that pass as a rule, and that many in a row show to last."""


class ChatError(MmrerankError):
    """A call to a language model failed.

    ``retryable`` is true when the same call may succeed later (time-out, 429, 5xx, lost connection);
    ``kind`` says why it failed. ``systemic`` is true when every other question must be expected to fail the
    same way (by default, for the kinds of `SYSTEMIC`): a run should end after a few in a row.
    ``retry_after`` are the seconds that the server asks to wait. ``limit`` is the number that the question
    exceeds, where the server said it: images of ``too_many_images``.
    """

    exit_code = 6
    kind: FailureKind = "other"

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        kind: FailureKind | None = None,
        systemic: bool | None = None,
        retry_after: float | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(one_line(message, LONGEST_MESSAGE))
        self.retryable = retryable
        if kind is not None:
            self.kind = kind
        self.systemic = self.kind in SYSTEMIC if systemic is None else systemic
        self.retry_after = retry_after
        self.limit = limit


class ReplyError(ChatError):
    """The model answered, but its reply says nothing usable."""

    kind: FailureKind = "reply"


class NoRoomError(ReplyError):
    """The reply was cut off before it said anything: thoughts took all of its tokens."""

    kind: FailureKind = "no_room"


class BudgetError(ChatError):
    """A question was not asked, because what may be spent is spent."""

    kind: FailureKind = "budget"
