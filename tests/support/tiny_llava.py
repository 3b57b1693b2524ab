"""Builds tiny LLaVA folders with random weights, offline: they prove plumbing, never quality."""

from __future__ import annotations

from pathlib import Path

from tiny_qwen import tokenizer

TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
    "{%- for c in m.content %}{%- if c.type == 'image' %}{{ '<image>' }}{%- endif %}{%- endfor %}"
    "{%- for c in m.content %}{%- if c.type == 'text' %}{{ '\n' + c.text }}{%- endif %}{%- endfor %}"
    "{{ '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)


def build(folder: Path, *, seed: int = 0) -> Path:
    """Writes a LLaVA-OneVision checkpoint into ``folder`` and returns it."""
    import torch
    import transformers as T

    tok = tokenizer()
    tok.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    text = T.Qwen2Config(
        vocab_size=-(-len(tok) // 64) * 64, hidden_size=64, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=32768, tie_word_embeddings=False,
    )  # fmt: skip
    eyes = T.SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=56, patch_size=14,
    )  # fmt: skip
    config = T.LlavaOnevisionConfig(
        text_config=text, vision_config=eyes,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112]],
        vision_aspect_ratio="anyres_max_9", tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T.LlavaOnevisionForConditionalGeneration(config).to(torch.float32).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.mul_(4.0)
    processor = T.LlavaOnevisionProcessor(
        image_processor=T.LlavaOnevisionImageProcessor(
            size={"height": 56, "width": 56}, image_grid_pinpoints=config.image_grid_pinpoints
        ),
        tokenizer=tok,
        video_processor=T.LlavaOnevisionVideoProcessor(size={"height": 56, "width": 56}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_next(folder: Path, *, seed: int = 0) -> Path:
    """Writes a LLaVA-1.6 checkpoint into ``folder`` and returns it; ``<s>`` opens every text of it."""
    import torch
    import transformers as T
    from tokenizers.processors import TemplateProcessing

    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<s>", "<image>"]})
    backend = words.backend_tokenizer
    begins = ("<s>", words.convert_tokens_to_ids("<s>"))
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[begins])
    tok = T.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    text = T.MistralConfig(
        vocab_size=-(-len(tok) // 64) * 64, hidden_size=64, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=32768, tie_word_embeddings=False,
    )  # fmt: skip
    eyes = T.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        image_size=56, patch_size=14,
    )  # fmt: skip
    places = [[56, 112], [112, 56], [112, 112]]
    config = T.LlavaNextConfig(
        text_config=text, vision_config=eyes, image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=places, vision_feature_select_strategy="default", vision_feature_layer=-2,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T.LlavaNextForConditionalGeneration(config).to(torch.float32).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.mul_(4.0)
    size = {"shortest_edge": 56}
    processor = T.LlavaNextProcessor(
        image_processor=T.LlavaNextImageProcessor(
            size=size, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=places
        ),
        tokenizer=tok,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
