"""How many of something, in words: for every layer that tells it."""


def counted(count: int, noun: str) -> str:
    """ "1 image", "3 images"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
