"""Subjects on disk: photos taken in, captions and masks beside them, the record, renaming, and the registry that keeps
one word for one subject across everything a project ever learnt.
"""
