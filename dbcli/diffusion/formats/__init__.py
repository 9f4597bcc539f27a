"""The formats of other programs, written and read: checkpoints in the original layout, diffusers folders, LoRAs of
diffusers and kohya, embeddings, and the metadata in their headers.
"""
