"""Subjects brought in from photos, kohya folders and datasets, reviewed and annotated, and given a word that is free
and weak.
"""
