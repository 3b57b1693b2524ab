"""Qwen-VL: what chat and embedders share."""
