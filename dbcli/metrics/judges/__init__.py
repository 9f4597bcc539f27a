"""The encoders that score (DINO, CLIP, the embedded ones): their files, architectures and preprocessing, and a cache of
their features.
"""
