"""Which scores are counts of images, by name: what reckons them and what prints them share it.

It is read where torch is not loaded, so it lies outside of the scores themselves.
"""

# The others are cosines, and FACE 1 - a distance.
SHARES = frozenset({"identified", "scene", "copies", "face_found", "same_person"})
