"""Builds tiny checkpoints of other families than Qwen-VL, with random weights and real processors, offline.

They prove plumbing, never quality. Templates have the form of the released ones, with their special tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_qwen import TEMPLATE as CHATML
from tiny_qwen import _corpus, tokenizer

KINDS = ("gemma3", "internvl", "idefics3", "llava_onevision", "mistral3", "qwen3_5")
HIDDEN = 64
SIDE = 56
"""Pixels of a side of the vision tower's input, where that is fixed."""
TEXT = {
    "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": False,
}  # fmt: skip
SIGLIP = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": SIDE, "patch_size": 14,
}  # fmt: skip

GEMMA3 = (
    "{{ bos_token }}{%- set first = '' %}{%- set turns = messages %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- if messages[0]['content'] is string %}{%- set first = messages[0]['content'] + '\n\n' %}"
    "{%- else %}{%- set first = messages[0]['content'][0]['text'] + '\n\n' %}{%- endif %}"
    "{%- set turns = messages[1:] %}{%- endif %}"
    "{%- for m in turns %}"
    "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n'"
    " + (first if loop.first else '') }}"
    "{%- if m['content'] is string %}{{ m['content'] | trim }}{%- else %}"
    "{%- for c in m['content'] %}{%- if c['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{%- else %}{{ c['text'] | trim }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{ '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{%- endif %}"
)
INTERNVL = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.content is string %}{{ m.content }}{%- else %}{%- for c in m.content %}"
    "{%- if c.type == 'image' %}{{ '<IMG_CONTEXT>\n' }}{%- else %}{{ c.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{ '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
IDEFICS3 = (
    "<|begin_of_text|>{%- for m in messages %}{{ m.role | capitalize }}"
    "{%- if m.content[0].type == 'image' %}{{ ':' }}{%- else %}{{ ': ' }}{%- endif %}"
    "{%- for c in m.content %}{%- if c.type == 'text' %}{{ c.text }}"
    "{%- elif c.type == 'image' %}{{ '<image>' }}{%- endif %}{%- endfor %}"
    "{{ '<end_of_utterance>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ 'Assistant:' }}{%- endif %}"
)
LLAVA = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
    "{%- for c in m.content %}{%- if c.type == 'image' %}{{ '<image>\n' }}{%- endif %}{%- endfor %}"
    "{%- for c in m.content %}{%- if c.type == 'text' %}{{ c.text }}{%- endif %}{%- endfor %}"
    "{{ '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
MISTRAL3 = (
    "{{ bos_token }}{%- for m in messages %}"
    "{%- if m.role == 'system' %}{{ '[SYSTEM_PROMPT]' }}"
    "{%- elif m.role == 'user' %}{{ '[INST]' }}{%- endif %}"
    "{%- if m.content is string %}{{ m.content }}{%- else %}{%- for c in m.content %}"
    "{%- if c.type == 'image' %}{{ '[IMG]' }}{%- else %}{{ c.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{%- if m.role == 'system' %}{{ '[/SYSTEM_PROMPT]' }}{%- elif m.role == 'user' %}{{ '[/INST]' }}"
    "{%- else %}{{ eos_token }}{%- endif %}{%- endfor %}"
)
QWEN3_5 = CHATML.replace(
    "<|im_start|>assistant\n' }}{%- endif %}",
    "<|im_start|>assistant\n' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{%- else %}{{ '<think>\n' }}{%- endif %}{%- endif %}",
)


def build(
    folder: Path, kind: str, *, seed: int = 0, template: str | None = None, terse: float = 0, **text: Any
) -> Path:
    """Writes a checkpoint of ``kind`` (one of `KINDS`) into ``folder`` and returns it.

    ``template`` replaces the chat template; ``terse`` makes a model whose written texts are short;
    ``text`` changes the language model's configuration.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = {
            "gemma3": _gemma3, "internvl": _internvl, "idefics3": _idefics3, "mistral3": _mistral3,
            "llava_onevision": _llava, "qwen3_5": _qwen3_5,
        }[kind](TEXT | text)  # fmt: skip
        _widen(model)
        if terse:
            _hurry(model, processor.tokenizer, terse)
    if template is not None:
        processor.chat_template = template
    _save(model, processor, folder)
    return folder


def hurried(source: Path, folder: Path, by: float) -> Path:
    """A copy of the checkpoint in ``source`` whose written texts are short; see `build`."""
    import shutil

    from transformers import AutoModelForImageTextToText, AutoProcessor

    shutil.copytree(source, folder, dirs_exist_ok=True)
    model = AutoModelForImageTextToText.from_pretrained(source)
    _hurry(model, AutoProcessor.from_pretrained(source).tokenizer, by)
    model.save_pretrained(folder)
    return folder


def build_text(folder: Path, *, seed: int = 0, template: str = CHATML) -> Path:
    """A tiny causal model that sees no images (Qwen2) in ``folder``."""
    import torch
    import transformers as T

    tok = tokenizer()
    tok.chat_template = template
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T.Qwen2ForCausalLM(T.Qwen2Config(vocab_size=_rows(tok), **TEXT)).to(torch.float32).eval()
        _widen(model)
    _save(model, tok, folder)
    return folder


def _save(model: Any, processor: Any, folder: Path) -> None:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    tok = processor if isinstance(processor, PreTrainedTokenizerBase) else processor.tokenizer
    model.generation_config = GenerationConfig(
        eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _widen(model: Any) -> None:
    """Wider weights than fresh ones, so that words and images matter as they do to a trained model."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "mm_input_projection" not in name:
                weight.mul_(8.0 if "lm_head" in name else 4.0)
            if "mm_input_projection_weight" in name:  # Gemma 3 begins with zeros there: blind
                weight.normal_(0, 0.3)
            if "image_newline" in name:
                weight.normal_(0, 1)


def _hurry(model: Any, tok: Any, by: float) -> None:
    """Makes the end of a text likelier by ``by`` at every place: rambling under a grammar takes long."""
    import torch

    words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        words[:, 0] = 16 * words.norm(dim=1).mean()  # one number of every state is alike
        head[:, 0] = 0
        for text in ('"', '",', '"}', '"]'):
            if len(ids := tok.encode(text, add_special_tokens=False)) == 1:
                head[ids[0], 0] = by


def _rows(tok: Any) -> int:
    return -(-len(tok) // 64) * 64


def _made(config: Any) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_config(config).to(torch.float32).eval()


def _gemma_tokenizer() -> Any:
    """A byte-fallback BPE with blanks as U+2581, as Gemma's is."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Replace(" ", "\u2581")
    bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*special, *bytes_], show_progress=False,
        initial_alphabet=[chr(n) for n in range(33, 127)],
    )  # fmt: skip
    lines = [part for line in _corpus() for part in (line, *(f" {w}" for w in line.split()), *line.split())]
    bpe.train_from_iterator(lines, trainer)
    table = json.loads(bpe.to_str())["model"]
    return GemmaTokenizer(
        vocab=table["vocab"],
        merges=[tuple(m) for m in table["merges"]],
        extra_special_tokens={
            "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>", "start_of_turn": "<start_of_turn>", "end_of_turn": "<end_of_turn>",
        },
    )  # fmt: skip


def _gemma3(text: dict[str, Any]) -> tuple[Any, Any]:
    import transformers as T

    tok = _gemma_tokenizer()
    config = T.Gemma3Config(
        text_config=text | {
            "vocab_size": _rows(tok), "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"], "eos_token_id": tok.eos_token_id,
            "bos_token_id": tok.bos_token_id, "pad_token_id": tok.pad_token_id,
        },
        vision_config=SIGLIP | {"vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=tok.image_token_id,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = T.Gemma3Processor(
        image_processor=T.Gemma3ImageProcessor(
            size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tok, image_seq_length=4, chat_template=GEMMA3,
    )  # fmt: skip
    tok.eos_token = "<end_of_turn>"
    return _made(config), processor


def _internvl(text: dict[str, Any]) -> tuple[Any, Any]:
    import transformers as T

    tok = tokenizer()
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tok.add_special_tokens({"extra_special_tokens": list(named.values())}, replace_extra_special_tokens=False)
    tok._set_model_specific_special_tokens(named)
    config = T.InternVLConfig(
        text_config=text | {"model_type": "qwen2", "vocab_size": _rows(tok)},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [SIDE, SIDE], "patch_size": [14, 14],
        },
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4, tie_word_embeddings=False,
    )  # fmt: skip
    processor = T.InternVLProcessor(
        image_processor=T.GotOcr2ImageProcessor(
            size={"height": SIDE, "width": SIDE}, min_patches=1, max_patches=12, crop_to_patches=False
        ),
        tokenizer=tok, video_processor=T.InternVLVideoProcessor(size={"height": SIDE, "width": SIDE}),
        image_seq_length=4, chat_template=INTERNVL,
    )  # fmt: skip
    return _made(config), processor


def _idefics3(text: dict[str, Any]) -> tuple[Any, Any]:
    import transformers as T

    tok = tokenizer()
    own = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<|begin_of_text|>"]
    own += [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    tok.add_special_tokens({"extra_special_tokens": own}, replace_extra_special_tokens=False)
    tok.eos_token, tok.bos_token = "<end_of_utterance>", "<|begin_of_text|>"
    config = T.Idefics3Config(
        text_config=text | {
            "model_type": "llama", "vocab_size": _rows(tok), "pad_token_id": tok.pad_token_id,
        },
        vision_config=SIGLIP, image_token_id=tok.convert_tokens_to_ids("<image>"), scale_factor=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = T.Idefics3Processor(
        image_processor=T.Idefics3ImageProcessor(
            size={"longest_edge": 4 * SIDE}, max_image_size={"longest_edge": SIDE}
        ),
        tokenizer=tok, image_seq_len=4, chat_template=IDEFICS3,
    )  # fmt: skip
    return _made(config), processor


def _llava(text: dict[str, Any]) -> tuple[Any, Any]:
    import transformers as T

    tok = tokenizer()
    tok.add_special_tokens(
        {"extra_special_tokens": ["<image>", "<video>"]}, replace_extra_special_tokens=False
    )
    config = T.LlavaOnevisionConfig(
        text_config=text | {"model_type": "qwen2", "vocab_size": _rows(tok)},
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112], [56, 168], [168, 56]],
        vision_aspect_ratio="anyres_max_9", tie_word_embeddings=False,
    )  # fmt: skip
    processor = T.LlavaOnevisionProcessor(
        image_processor=T.LlavaOnevisionImageProcessor(
            size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=config.image_grid_pinpoints
        ),
        tokenizer=tok,
        video_processor=T.LlavaOnevisionVideoProcessor(size={"height": SIDE, "width": SIDE}),
        num_image_tokens=16, vision_feature_select_strategy="full", chat_template=LLAVA,
    )  # fmt: skip
    return _made(config), processor


def _mistral3(text: dict[str, Any]) -> tuple[Any, Any]:
    import transformers as T

    tok = tokenizer()
    own = ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    own += ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    tok.add_special_tokens({"extra_special_tokens": own}, replace_extra_special_tokens=False)
    tok.bos_token, tok.eos_token = "<s>", "</s>"
    config = T.Mistral3Config(
        text_config=text | {"model_type": "mistral", "vocab_size": _rows(tok), "head_dim": 16,
                            "sliding_window": None},
        vision_config={
            "model_type": "pixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "head_dim": 16, "image_size": 1540, "patch_size": 14,
        },
        image_token_index=tok.convert_tokens_to_ids("[IMG]"), spatial_merge_size=2, tie_word_embeddings=False,
    )  # fmt: skip
    processor = T.PixtralProcessor(
        image_processor=T.PixtralImageProcessor(
            size={"longest_edge": 1540}, patch_size={"height": 14, "width": 14}
        ),
        tokenizer=tok, patch_size=14, spatial_merge_size=2, chat_template=MISTRAL3,
    )  # fmt: skip
    return _made(config), processor


def _qwen3_5(text: dict[str, Any]) -> tuple[Any, Any]:
    import transformers as T

    tok = tokenizer()
    tok.add_tokens(["<think>", "</think>"])
    sid = tok.convert_tokens_to_ids
    config = T.Qwen3_5Config(
        text_config=text | {
            "num_hidden_layers": 3, "layer_types": ["linear_attention", "linear_attention", "full_attention"],
            "vocab_size": _rows(tok), "head_dim": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 0],
                "mrope_interleaved": True, "partial_rotary_factor": 0.25,
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16,
            "out_hidden_size": HIDDEN, "num_position_embeddings": 256,
        },
        image_token_id=sid("<|image_pad|>"), video_token_id=sid("<|video_pad|>"),
        vision_start_token_id=sid("<|vision_start|>"), vision_end_token_id=sid("<|vision_end|>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = T.Qwen3VLProcessor(
        image_processor=T.Qwen2VLImageProcessor(
            patch_size=16, merge_size=2, temporal_patch_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3,
            size={"shortest_edge": 64 * 64, "longest_edge": 2048 * 2048},
        ),
        tokenizer=tok, video_processor=T.Qwen3VLVideoProcessor(patch_size=16), chat_template=QWEN3_5,
    )  # fmt: skip
    return _made(config), processor
