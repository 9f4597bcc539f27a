"""The model side: bases, adapters, photos as tensors, conditioning, losses, the trainer, the sampler, file formats."""
