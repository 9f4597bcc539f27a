"""From prompts to images: classifier-free guidance with any sampler."""
