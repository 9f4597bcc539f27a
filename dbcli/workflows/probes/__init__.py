"""Probes: a run scored on its way, at fixed steps with fixed prompts and seeds, so that its best checkpoint becomes the
result.
"""
