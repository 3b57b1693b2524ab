"""What a server's words mean: which kind of failure they tell of. Pure functions.

The words are those of OpenAI, Azure, Anthropic, Gemini, DashScope, vLLM, SGLang, llama.cpp, Ollama, LM
Studio, TGI and the gateways before them. What is not known stays the plain ``bad_request`` that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmrerank.chat.openai.amounts import most_images, wait_in_words
from mmrerank.errors import FailureKind

_Pattern = re.Pattern[str]


def _any(*patterns: str) -> _Pattern:
    return re.compile("|".join(patterns), re.I | re.S)


_AUTH = _any(
    r"(invalid|incorrect|missing|malformed).{0,20}api[ _-]?key",
    r"api[ _-]?key.{0,20}(not valid|invalid|incorrect|expired|not found|missing)",
    r"invalid_api_key|authentication_error|invalid x-api-key|no auth credentials|\bunauthorized\b",
)
_QUOTA = _any(
    r"insufficient_quota|exceeded your current quota|quota (is )?exceeded|out of quota",
    r"quota.{0,20}exhausted|per[- _]?day|\bdaily\b|\b(RPD|TPD)\b|per[- _]?month|\bmonthly\b|usage limit",
    r"free tier.{0,40}exhausted|AllocationQuota",
)
_PAYMENT = _any(
    r"credit balance|insufficient (credit|fund|balance)|insufficient_balance|\bbilling_(hard|not)",
    r"(requires|out of|not enough|no) (more )?credits|account is not active|billing details|Arrearage",
    r"overdue|hard limit.{0,20}reached|account is in good standing|payment required|add (a )?payment",
)
_FILTER = _any(
    r"content[_ -]?(filter|policy|management|moderation)|ResponsibleAIPolicy|safety (system|filter|setting)",
    r"data_?inspection_?failed|inappropriate content|prohibited[_ ]content|moderation|\bflagged\b",
    r"(blocked|rejected|refused).{0,40}(safety|policy|policies|unsafe)|unsafe content",
    r"sensitive (content|words?)|content exists risk|violat\w* .{0,30}polic(y|ies)|敏感|违规",
)
_CONTEXT = _any(
    r"context[_ ](length|window|size|limit)|maximum context|max_model_len|model_max_length|context_length",
    r"(prompt|input|request|messages?|conversation) (is |are |was )?too (long|many tokens)",
    r"too many (input |prompt )?tokens|exceed\w*.{0,60}\btokens?\b|\btokens?\b.{0,40}exceed",
    r"longer than the (max|maximum)|maximum (model |input |prompt )?length|max_new_tokens.{0,20}<=",
    r"input length.{0,40}(should|must|exceed)|reduce the length|n_ctx",
    r"number of tokens.{0,20}(must|should)|less than \d+ tokens|string_above_max_length|context the overflow",
)
_NOT_FOUND = _any(
    r"model.{0,80}(does not exist|not found|not loaded)|(unknown|no such|not a valid) model",
    r"no models? loaded|model_not_found|invalid model( name|id)|deployment.{0,40}does not exist",
)
_NO_IMAGES = _any(
    r"not a multimodal|do(es)?(n't| not) (support|accept|allow|take) (\w+ ){0,2}(image|vision|multimodal)",
    r"image (input|content|url)s? (is|are) (not|only) supported|unknown variant .?image_url|mmproj",
    r"at most 0 image|image_url is only supported|support(s|ed)? (for )?image input",
    r"missing data required for image|not have vision",
    r"(image|vision)\w*( input)?s? (is|are) not (supported|enabled)|text[- ]only model",
    r"multimodal.{0,30}not (supported|enabled)|content.{0,20}must be a string",
)
_BUSY = _any(
    r"overloaded|temporarily unavailable|server is busy|at capacity|try again later",
    r"rate[_ ]limit|too many requests",
)
_LARGE = _any(
    r"(payload|request|body|file|image|entity|upload|size|data)\w*( size)?( is| was)? too (large|big)",
    r"message size.{0,30}(exceed|limit)|request_too_large|entity too large",
    r"exceeds? .{0,60}\b(\d+ ?)?([KM]i?B|bytes|megabytes)\b",
    r"(?<!pixel )size limit|larger than .{0,30}\b([KM]i?B|bytes)\b",
    r"max(imum)?.{0,30}\d ?([KM]i?B|bytes)\b|maximum allowed size",
    r"(dimension|width|height|resolution|pixel)s?\b.{0,60}(exceed|too (large|big|many)|at most|max)",
    r"max\w* .{0,30}(dimension|resolution|pixels)|exceed.{0,60}(dimension|resolution|pixel)",
)
_BAD_IMAGE = _any(
    r"(invalid|corrupt\w*|malformed|truncated|damaged|unsupported|cannot identify).{0,40}(image|picture)",
    r"(failed|unable) to (load|decode|process|parse|read).{0,40}(image|picture)",
    r"(could|can) ?not (be )?(fetch|decode|load|process|read|identif)\w*.{0,40}(image|picture)",
    r"image.{0,60}(could not be|cannot be|invalid|unsupported|corrupt|not (a )?valid|unable|failed)",
    r"invalid_image|image_parse_error|must be larger than|meet the model restrictions|aspect ratio",
    r"at least \d+ ?(x ?\d+ ?)?pixels|illegal base64|broken data stream",
    r"\b(image|picture)\b.{0,60}(too small|unknown format|truncated|broken|damaged|not represent)",
)


def meaning(status: int, text: str) -> FailureKind:
    """What an answer of ``status`` with ``text`` (all that the server says, codes included) tells of.

    ``status`` is 0 where there is none, as for an error inside a stream.
    """
    by_status = _by_status(status, text)
    if by_status is not None:
        return by_status
    known: Iterable[tuple[FailureKind, _Pattern]] = (
        ("auth", _AUTH),
        ("payment", _PAYMENT),
        ("content_filter", _FILTER),
        ("no_images", _NO_IMAGES),
        ("too_large", _LARGE),
        ("context", _CONTEXT),
        ("image", _BAD_IMAGE),
        ("quota", _QUOTA),
        ("not_found", _NOT_FOUND),
    )
    for kind, pattern in known:
        if pattern.search(text):
            return kind
    if status >= 500 or _BUSY.search(text):
        return "server"
    return "bad_request" if status else "other"


def _by_status(status: int, text: str) -> FailureKind | None:
    """What the status alone decides, or the status with few words; None where the words decide."""
    if status == 429:
        wait = wait_in_words(text)
        spent = _PAYMENT.search(text) or _QUOTA.search(text)
        if _ALONE.search(text):  # larger than a minute's worth: waiting does not help
            return "too_large"
        # Gemini says "quota" of a minute's worth as well, and how long to wait
        return "quota" if spent and (wait is None or _LASTING.search(text)) else "rate_limit"
    if status == 403 and _RATE.search(text):
        return "rate_limit"
    if status == 403:
        return (
            "content_filter" if _FILTER.search(text) else "payment" if _PAYMENT.search(text) else "forbidden"
        )
    if status == 404:
        return "no_images" if _NO_IMAGES.search(text) else "not_found"
    fixed: dict[int, FailureKind] = {
        401: "auth", 402: "payment", 405: "address", 408: "timeout", 413: "too_large", 502: "server",
        503: "server", 504: "timeout", 529: "server",
    }  # fmt: skip
    return fixed.get(status)


_RATE = _any(r"rate[_ ]?limit")
_ALONE = _any(r"request too large")
_LASTING = _any(r"insufficient_quota", r"per[- _]?day|\bdaily\b|per[- _]?month|\bmonthly\b|\b(RPD|TPD)\b")


_REQUEST = _any(
    r"BadRequestError|UnsupportedParams|jinja|template (error|rendering)",
    r"roles must alternate|system (role|message)|validation error|parse grammar",
)


def about_the_request(text: str) -> bool:
    """Whether a server that answered 5xx means the request all the same: gateways and templates do that."""
    return _REQUEST.search(text) is not None or most_images(text, 1_000_000) is not None


_NO_SYSTEM = _any(
    r"\b(system|developer)\b.{0,40}(not (support|allow|enabl|accept|valid|permit)|unsupported|invalid)",
    r"(unexpected|unsupported|unknown|invalid|not support).{0,30}\b(system|developer)\b",
    r"role.{0,40}(should|must) be .?user.{0,20}assistant|only .?user.{0,20}assistant",
)
_ALTERNATE = _any(r"roles? must alternate|alternat\w+ (between )?.{0,20}(user|role)|first message.{0,30}user")


def system_refused(text: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a complaint is about the system turn of ``messages``: of a template that has none."""
    if not any(m["role"] == "system" for m in messages):
        return False
    return bool(_NO_SYSTEM.search(text) or _ALTERNATE.search(text))
