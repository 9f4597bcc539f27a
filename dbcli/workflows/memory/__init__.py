"""Whether a recipe fits: the estimate before a run, the ladder of smaller recipes, and the step down it when memory
ends in the middle of a run.
"""
