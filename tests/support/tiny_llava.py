"""Builds a tiny LLaVA-OneVision folder with random weights, offline: it proves plumbing, never quality."""

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
    """Writes a checkpoint into ``folder`` and returns it."""
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
