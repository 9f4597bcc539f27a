"""How anything reaches the disk. Names that may become files, the place of every file of a project (`layout`), writes
that a crash cannot tear (`atomic`), folders with a manifest of hashes, locks, and records read strictly from JSON and
YAML. The lowest room: it knows no subject, no run and no setting.
"""
