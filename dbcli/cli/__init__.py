"""The command line: each command parses, calls one workflow, and prints. Rich lives in this room only."""
