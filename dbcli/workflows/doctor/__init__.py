"""The machine and the project checked, each fault with the command that mends it."""
