"""Builds a tiny jina-embeddings-v4 folder with random weights and adapters, offline, in the released form."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_qwen import build as build_qwen

RANK, ALPHA = 4, 8
TASKS = ("retrieval", "text-matching", "code")
PROJECTIONS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def build(folder: Path, *, seed: int = 0) -> Path:
    """Writes a checkpoint with ``adapters`` into ``folder`` and returns it."""
    import torch
    from safetensors.torch import load_file, save_file

    build_qwen(folder, "qwen2_5_vl", hidden=64, layers=2)
    weights = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(seed)
    weights["multi_vector_projector.weight"] = torch.randn(8, 64, generator=draw)
    weights["multi_vector_projector.bias"] = torch.zeros(8)
    adapter = {}
    shapes = {"multi_vector_projector": (8, 64)}
    for layer in range(2):
        for name in PROJECTIONS:
            out, into = weights[f"model.layers.{layer}.{name}.weight"].shape
            shapes[f"model.language_model.layers.{layer}.{name}"] = (out, into)
    for module, (out, into) in shapes.items():
        for task in TASKS:
            for side, shape in (("A", (RANK, into)), ("B", (out, RANK))):
                key = f"base_model.model.{module}.lora_{side}.{task}.weight"
                adapter[key] = 0.3 * torch.randn(shape, generator=draw)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["JinaEmbeddingsV4Model"]
    config["auto_map"] = {"AutoModel": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Model"}
    (folder / "config.json").write_text(json.dumps(config))
    own = json.loads((folder / "processor_config.json").read_text())
    own["processor_class"] = "JinaEmbeddingsV4Processor"
    own["auto_map"] = {"AutoProcessor": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Processor"}
    (folder / "processor_config.json").write_text(json.dumps(own))
    (folder / "adapters").mkdir()
    save_file(adapter, folder / "adapters" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": False, "use_dora": False}
    (folder / "adapters" / "adapter_config.json").write_text(json.dumps(settings))
    return folder
