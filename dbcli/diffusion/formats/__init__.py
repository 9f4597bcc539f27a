"""File formats of other tools: diffusers folders, original Stable Diffusion checkpoints, LoRA files; out and in."""
