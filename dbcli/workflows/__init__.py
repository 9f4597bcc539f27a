"""One file a use case: each joins the rooms below with plain values and reports through a Progress.

Importing a workflow loads nothing heavy; torch and its like are imported inside the functions.
"""
