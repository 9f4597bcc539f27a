"""What of a base is trained: all of it, low-rank additions to its layers (LoRA, DoRA), or new word vectors (textual
inversion), and several LoRAs mixed in one model.
"""
