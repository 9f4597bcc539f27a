"""The words of a prompt: identifiers and class nouns, the one place where a template is rendered with them and without,
which tokens of the tokenizer belong to whom, and slips and foreign syntax in what a person typed. Text alone; nothing
is read from disk.
"""
