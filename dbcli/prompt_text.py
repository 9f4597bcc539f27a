"""Text as CLIP was trained on it: the one cleaning that every text gets before it becomes tokens.

transformers no longer cleans text in its CLIP tokenizer and open_clip does; without this a prompt would be drawn as one
text and scored as another.
"""

import html
import re

# Written out in a text these would become control tokens and end it early, here or in a judge's tokenizer.
_CONTROL_WORDS = re.compile(r"<\|?(?:start_?of_?text|end_?of_?text)\|?>", re.IGNORECASE)


def cleaned(text: str) -> str:
    """Return `text` on one line, mended as the training of CLIP mended its captions.

    Broken encodings, typographic marks, ligatures and full-width forms are fixed, HTML entities are unescaped twice,
    runs of white space become one space, and control words are left out. Plain text comes back as it is. CLIP's
    lower-casing is the tokenizer's (Radford et al. 2021, `basic_clean` and `whitespace_clean` of its tokenizer).
    """
    from ftfy import fix_text

    mended = html.unescape(html.unescape(fix_text(text)))
    return " ".join(_CONTROL_WORDS.sub(" ", mended).split())


def with_article(words: str) -> str:
    """Return words with "a" before them, or "an" before a vowel."""
    return f"an {words}" if words[:1].lower() in tuple("aeiou") else f"a {words}"


def from_word(text: str, place: int) -> str:
    """Return the end of `text` from the beginning of the word that the character at `place` belongs to."""
    while 0 < place < len(text) and text[place].isalnum() and text[place - 1].isalnum():
        place -= 1
    return text[place:]
