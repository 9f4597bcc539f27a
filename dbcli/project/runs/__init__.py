"""A run on disk: its numbered folder, record and events, its checkpoints and weights with their manifests, and what
probes, scoring and interference left beside it, all readable without torch.
"""
