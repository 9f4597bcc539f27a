"""`train`: one run from its subjects to its weights. `run` is the way from top to bottom; the other files each own one
part of it: the data, the loop, the checkpoints, what a resumed or continued run takes over, and what is said when the
loss diverges.
"""
