"""`eval` and its relatives: a suite's prompts sampled with a run and scored against photos and texts, runs compared,
subjects held apart, and the page of it all.
"""
