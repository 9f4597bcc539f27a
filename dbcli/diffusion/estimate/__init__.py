"""What a recipe will take of a device, found by running it on tensors that have shapes and no memory, and how fast the
device is.
"""
