"""Runs chosen by name, number or subject, listed, removed, and compared by what differs in their settings."""
