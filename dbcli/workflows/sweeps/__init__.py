"""Many runs from one file: planned, carried out here or on a cluster, found again when interrupted, and reported as one
table.
"""
