"""Labels of cells as a person reads them: with the subject, never with a template's fields."""

import re


def rendered_label(text: str, words: tuple[str, str] | None) -> str:
    """A label with an identifier and a class noun in place of {identifier} and {class}; None says "the subject"."""
    if words is not None:
        return text.replace("{identifier}", words[0]).replace("{class}", words[1])
    together = re.sub(r"(?:\b(?:a|an|the) )?\{identifier\} \{class\}", "the subject", text)
    return together.replace("{identifier}", "the subject").replace("{class}", "the class")
