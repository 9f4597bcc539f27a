"""Settings: every key of a profile with its default and range, layers of settings made one, the project's own file, and
what speaks against a combination. Values only; which layer wins for a command is settled in `workflows/setup`.
"""
