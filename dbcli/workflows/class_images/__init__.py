"""Class images for prior preservation: sampled once from the frozen base, topped up later, and dealt to the subjects of
a run.
"""
