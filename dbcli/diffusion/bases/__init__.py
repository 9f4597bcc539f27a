"""Base models: a hub id, a diffusers folder, a single file or the embedded one becomes a `Base` of UNet, VAE, text
encoder and tokenizer, or is refused by name before memory is taken.
"""
