"""Sets of class images for prior preservation, kept with all that decides their pixels, and what a teacher predicted
for them.
"""
