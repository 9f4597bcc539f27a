"""Prompts put into the words of a run, and told what the text encoder will not read of them."""
