"""Encoders that judge images, scores on their features, suites of prompts, and the statistics around them.

Importing this package, `suites`, `dataset`, `choice` or `statistics` does not load torch; `scores`, `protocol` and
most of `judges` do.
"""
