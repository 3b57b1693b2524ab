"""The words of servers, as people reported them: which kind of failure they tell of, and the numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrerank.chat.openai.amounts import SizeLimits, most_images, number_below, size_limits, wait_in_words
from mmrerank.chat.openai.complaints import meaning, system_refused
from mmrerank.chat.openai.reading import reading
from mmrerank.chat.openai.said import error_text
from mmrerank.chat.openai.stream import assembled
from mmrerank.errors import SYSTEMIC
from mmrerank.messages import Ask, Message, Part


@pytest.mark.parametrize(
    ("said", "sent", "most"),
    [
        # vLLM, new and old; SGLang; Ollama; OpenAI, Azure, Anthropic, Gemini, Mistral, Groq, Bedrock
        ("At most 4 image(s) may be provided in one prompt.", 6, 4),
        ("At most 1 image(s) may be provided in one request.", 6, 1),
        ("You set image=4 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 6 image items.", 6, 4),
        (
            "You set or defaulted to '{\"image\": 1}' in `--limit-mm-per-prompt`, but passed 2 image items",
            2,
            1,
        ),
        ("Too many image items: 6 > limit 4", 6, 4),
        ("Number of image items (6) exceeds limit 4", 6, 4),
        ("Image count 6 exceeds limit 4 per request", 6, 4),
        ("vision model only supports a single image per message", 6, 1),
        ("this model only supports one image while more than one image requested", 6, 1),
        ("Too many images in request. Max is 4.", 6, 4),
        ("The number of images in the request exceeds the limit of 50.", 60, 50),
        ("Too much media: 0 document pages + 101 images > 100", 101, 100),
        ("too many images and documents: 21 + 0 > 20", 21, 20),
        ("Please use fewer than 17 images in your request to models/gemini-pro-vision", 20, 16),
        ("Too many images in request: 9. Maximum 8 images allowed", 9, 8),
        ("Too many images provided. This model supports up to 5 images", 6, 5),
        ("max 16 images", 20, 16),
        ("Maximum number of images is 10", 20, 10),
        ("The maximum number of images (4) was exceeded", 6, 4),
        ("number of images must be less than or equal to 4", 6, 4),
        ("messages.1.content: at most 4 `image_url` parts are allowed", 6, 4),
        ("image_url count must be <= 3", 6, 3),
        ("images: List should have at most 4 items after validation, not 6", 6, 4),
        ("Multiple images are not supported. Only one image per request is allowed.", 6, 1),
        ("Too many images", 6, 5),
        (
            "Too many images in request: 11 images provided, but the model supports a maximum of 10 images.",
            11,
            10,
        ),
        ("prompt contains 6 images but only 4 are supported", 6, 4),
        ("Image inputs exceed model limit: 6 > 4", 6, 4),
        ("allowed number of image inputs: 4", 6, 4),
        # of sizes, of one image, of tokens: not of how many
        ("image exceeds 5 MB maximum: 5316852 bytes > 5242880 bytes", 8, None),
        ("At least one of the image dimensions exceed max allowed size: 2000 pixels", 30, None),
        ("image too large: max 5 MB", 8, None),
        ("Invalid image at index 3", 6, None),
        ("Failed to process image: expected at most 3 channels", 6, None),
        ("height:20 or width:20 must be larger than factor:28", 30, None),
        ("This model's maximum context length is 4096 tokens, with 6 images you requested 5000", 8, None),
        ("absolute aspect ratio must be smaller than 200, got 300/1", 6, None),
        ("response_format json_schema is not supported with 3 images", 6, None),
    ],
)
def test_how_many_images(said: str, sent: int, most: int | None) -> None:
    assert most_images(said, sent) == most


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ("height:20 or width:20 must be larger than factor:28", SizeLimits(least_side=28)),
        ("[height:4 or width:4 must be larger than 10]", SizeLimits(least_side=10)),
        ("image is too small: minimum 64x64", SizeLimits(least_side=64)),
        ("Image dimensions must be at least 56 pixels", SizeLimits(least_side=56)),
        ("image exceeds 5 MB maximum: 5316852 bytes > 5242880 bytes", SizeLimits(most_bytes=5_000_000)),
        ("Image size 7.5 MB exceeds maximum allowed size of 4 MB", SizeLimits(most_bytes=4_000_000)),
        ("Exceeded limit on max bytes per data-uri item : 10485760", SizeLimits(most_bytes=10_485_760)),
        ("maximum dimensions 8000 px", SizeLimits(most_side=8000)),
        ("the image dimensions exceed max allowed size: 2000 pixels", SizeLimits(most_side=2000)),
        ("Image too big: 5000x400, max 4096x4096", SizeLimits(most_side=4096)),
        ("image width must be <= 4096", SizeLimits(most_side=4096)),
        ("Image has too many pixels: max 33177600 pixels", SizeLimits(most_side=5760)),
        # of the whole request, not of an image
        ("Request payload size exceeds the limit: 20971520 bytes.", SizeLimits()),
        ("You uploaded an unsupported image.", SizeLimits()),
    ],
)
def test_how_large(said: str, limits: SizeLimits) -> None:
    assert size_limits(said) == limits


@pytest.mark.parametrize(
    ("said", "sent", "most"),
    [
        ("Invalid value for 'top_logprobs': must be less than or equal to 5.", 20, 5),
        ("integer above maximum value. Expected a value <= 5, but got 20 instead.", 20, 5),
        ("Requested sample logprobs of 20, which is greater than max allowed: 5", 20, 5),
        ("logprobs must be between 0 and 5", 20, 5),
        ("should be in range [1, 6)", 20, 5),
        ("model gpt-4o-2024-08-06: top_logprobs max 5", 20, 5),
        ("This model supports at most 4096 completion tokens, whereas you provided 16384.", 16384, 4096),
        ("You are not allowed to request logprobs from this model", 20, None),
    ],
)
def test_how_many_of_something(said: str, sent: int, most: int | None) -> None:
    assert number_below(said, sent) == most


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Please try again in 2.5s.", 2.5),
        ("Please try again in 120ms", 0.12),
        ("Please retry in 34.07s", 34.07),
        ("try again after 20 seconds", 20),
        ("Please try again in 7m12s", 432),
        ("Please try again in 6h3m0s.", 21780),
        ("please wait for 2 minutes and 3 seconds", 123),
        ("retryDelay: 34s", 34),
        ("Please try again later", None),
        ("Rate limit reached: Limit 30000, Used 29000", None),
    ],
)
def test_how_long_to_wait(said: str, seconds: float | None) -> None:
    found = wait_in_words(said)
    assert found == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (429, "You exceeded your current quota, please check your plan. insufficient_quota", "quota"),
        (
            429,
            "You exceeded your current quota, check your billing details. Please retry in 34.07s",
            "rate_limit",
        ),
        (429, "Quota exceeded: GenerateRequestsPerDayPerProject-FreeTier. Please retry in 34.07s", "quota"),
        (429, "Rate limit reached on requests per day (RPD). Please try again in 7m12s.", "quota"),
        (429, "Rate limit reached on tokens per min (TPM). Please try again in 2.5s.", "rate_limit"),
        (
            429,
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.",
            "too_large",
        ),
        (429, "", "rate_limit"),
        (400, "Your credit balance is too low to access the Anthropic API", "payment"),
        (402, "Insufficient Balance", "payment"),
        (400, "API key not valid. Please pass a valid API key.", "auth"),
        (500, "litellm.AuthenticationError: Incorrect API key provided", "auth"),
        (401, "", "auth"),
        (403, "", "forbidden"),
        (403, "Your chosen model requires moderation and your input was flagged", "content_filter"),
        (
            400,
            "filtered due to the prompt triggering Azure OpenAI's content management policy",
            "content_filter",
        ),
        (400, "Input data may contain inappropriate content. data_inspection_failed", "content_filter"),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", "context"),
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000", "context"),
        (400, "The decoder prompt (length 9) is longer than the maximum model length of 8.", "context"),
        (400, "the request exceeds the available context size. exceed_context_size_error", "context"),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", "context"),
        (400, "'max_completion_tokens' is too large: 4096. maximum context length is 2048 tokens", "context"),
        (413, "", "too_large"),
        (400, "Prompt exceeds n_ctx: 2892 > 2048", "context"),
        (422, "inputs must have less than 4095 tokens. Given: 5000", "context"),
        (400, "Error: Model does not support images. Please use a model that does.", "no_images"),
        (400, "Request payload size exceeds the limit: 20971520 bytes.", "too_large"),
        (400, "image exceeds 5 MB maximum: 5316852 bytes > 5242880 bytes", "too_large"),
        (500, "height:20 or width:20 must be larger than factor:28", "image"),
        (400, "Invalid image data: could not fetch or decode the image, please retry.", "image"),
        (404, "The model `gpt-x` does not exist or you do not have access to it.", "not_found"),
        (404, "No endpoints found that support image input", "no_images"),
        (400, "Qwen/Qwen2.5-7B is not a multimodal model", "no_images"),
        (400, "messages[1]: unknown variant `image_url`, expected `text`", "no_images"),
        (500, "image input is not supported - hint: you may need to provide the mmproj", "no_images"),
        (400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "bad_request"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/...", "bad_request"),
        (400, "response_format of type json_schema is not supported by this model", "bad_request"),
        (400, "model: unknown field response_format", "bad_request"),
        (403, "rateLimitExceeded", "rate_limit"),
        (529, "Overloaded", "server"),
        (503, "Model not loaded yet", "server"),
        (504, "", "timeout"),
        (0, "overloaded", "server"),
        (0, "no idea", "other"),
    ],
)
def test_what_is_meant(status: int, said: str, kind: str) -> None:
    assert meaning(status, said) == kind


@pytest.mark.parametrize(
    "said",
    [
        "System role not supported",
        "Only user and assistant roles are supported!",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter',
        "messages.0.role: Input should be 'user' or 'assistant'",
    ],
)
def test_a_template_without_a_system_turn(said: str) -> None:
    assert system_refused(said, [{"role": "system"}, {"role": "user"}])
    assert not system_refused(said, [{"role": "user"}])


@pytest.mark.parametrize(
    ("body", "shown", "codes"),
    [
        ({"error": {"message": "No.", "code": "content_filter"}}, "No.", "content_filter"),
        ({"error": {"message": "No.", "innererror": {"code": "Policy"}}}, "No.", "Policy"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra", "type": "extra_forbidden"}]}, "Extra",
         "body.seed extra_forbidden"),
        ([{"error": {"message": "No.", "details": [{"retryDelay": "34s"}]}}], "No.", "retryDelay: 34s"),
        ("<html><title>Bad &amp; worse</title></html>", "a web page, titled 'Bad & worse'", ""),
        ("<!DOCTYPE html><p>", "a web page", ""),
    ],
    ids=str,
)  # fmt: skip
def test_words_and_codes_in_every_shape(body: object, shown: str, codes: str) -> None:
    said = error_text(body)
    assert (said.shown, said.codes) == (shown, codes)


WORDS = (
    "image", "images", "too many", "max", "at most", "4", "1.5", "MB", "bytes", "8000 px", "64x64", "[1, 6)",
    "fewer than", "one", "tokens", "context length", ">", "<=", "try again in", "2h3m", "=", "(", ".", "-",
)  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), st.integers(1, 40))
def test_nonsense_never_raises(text: str, sent: int) -> None:
    most = most_images(text, sent)
    assert most is None or 0 <= most < sent
    number = number_below(text, sent)
    assert number is None or 0 < number < sent
    assert (wait_in_words(text) or 0.0) >= 0
    limits = size_limits(text)
    assert min(limits.least_side, limits.most_side, limits.most_bytes) >= 0
    assert meaning(400, text) not in SYSTEMIC or text


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Content Exists Risk", "content_filter"),
        ("content violates our usage policies", "content_filter"),
        ("系统检测到输入或生成内容可能包含不安全或敏感内容", "content_filter"),
        ("image is too small", "image"),
        ("The image data you provided does not represent a valid image.", "image"),
        ("image: unknown format", "image"),
        ("image file is truncated (3 bytes not processed)", "image"),
        ("illegal base64 data at input byte 4", "image"),
        ("broken data stream when reading image file", "image"),
    ],
)
def test_more_words_for_one_picture(said: str, kind: str) -> None:
    assert meaning(400, said) == kind


def test_more_words_for_numbers() -> None:
    assert most_images("Exceeded the maximum number of images per request: 4", 6) == 4
    assert most_images("Multimodal image count 6 exceeds limit_mm_data_per_request['image'] = 2", 6) == 2
    assert wait_in_words("Please wait 10 seconds before retrying") == 10


@pytest.mark.parametrize(("span", "kind"), [("Day", "quota"), ("Minute", "rate_limit")])
def test_the_id_of_a_quota_says_how_long_it_lasts(span: str, kind: str) -> None:
    """As Gemini's OpenAI-compatible address answers: a list, and the id seven levels down."""
    violated = {"violations": [{"quotaId": f"GenerateRequestsPer{span}PerProjectPerModel-FreeTier"}]}
    error = {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [violated, {"retryDelay": "39s"}],
    }
    said = error_text([{"error": error}])
    assert meaning(429, f"{said.shown} {said.codes}") == kind


def test_a_free_tier_that_is_used_up_is_a_quota() -> None:
    said = "The free tier of the model has been exhausted. AllocationQuota.FreeTierOnly"
    assert meaning(429, said) == "quota"


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "function_call": {"name": "json", "arguments": '{"a": 1}'}},
        {"content": "", "parsed": {"a": 1}},
    ],
)
def test_answers_in_older_and_newer_places(message: dict[str, object]) -> None:
    ask = Ask(messages=(Message(role="user", parts=(Part(text="x"),)),), schema={"type": "object"})
    reply = reading(ask, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
    assert json.loads(reply.text) == {"a": 1}
    assert "the content beside it was empty" in reply.notes[0]


def test_a_stream_that_sends_the_message_whole() -> None:
    event = {"choices": [{"index": 0, "message": {"content": "red"}, "finish_reason": "stop"}]}
    whole = json.loads(assembled(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()) or b"{}")
    assert whole["choices"][0]["message"]["content"] == "red"
