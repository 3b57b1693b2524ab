"""Tokenizers for the bundled models, trained on what they will read and write.

`chat_tokenizer` is a Qwen tokenizer (byte-level BPE, Qwen's pre-tokenization and special tokens, so digits
never merge); `text_tokenizer` is a plain lower-case word-piece one for the dual encoder's text tower.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
           "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
           "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")  # fmt: skip
"""The special tokens of the Qwen-VL family, in its order."""

CHAT_TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.content is string %}{{ m.content }}{%- else %}{%- for c in m.content %}"
    "{%- if c.type == 'image' or 'image' in c or 'image_url' in c %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif 'text' in c %}{{ c.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{ '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)


def chat_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A ``Qwen2Tokenizer`` with at most ``vocabulary`` tokens before the special ones."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(m) for m in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        model_max_length=8192,
    )
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIAL)})
    return tokenizer


def text_tokenizer(texts: Iterable[str], vocabulary: int, length: int) -> Any:
    """A fast tokenizer whose end token has the highest id, where open_clip's arg-max pooling looks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=vocabulary - 1, special_tokens=["[PAD]", "[UNK]"], show_progress=False
        ),
    )
    words.add_special_tokens(["[END]"])
    end = words.token_to_id("[END]")
    words.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[END]",
        model_max_length=length,
    )
