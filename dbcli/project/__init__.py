"""Everything on disk: the layout, subjects, identifiers, class images, profiles, runs, atomic writes and locks.

No torch and no numpy here; Pillow is imported only inside the functions that open a picture.
"""
