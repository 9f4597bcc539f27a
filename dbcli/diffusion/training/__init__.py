"""One training step: batches as a pure function of seed and step, the loss, the optimiser, the teacher of the class
term, and a state that can be taken out and put back exactly.
"""
