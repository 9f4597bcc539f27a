"""Teach Stable Diffusion one particular thing from a few photos, draw it anywhere, and measure how well."""

__version__ = "0.2.0"
