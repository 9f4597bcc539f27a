"""The Typer commands, one file a group: each parses its options, calls one workflow and prints."""
