"""What is asked of a person: questions for options left out, dropped paths, and the prompt line of `generate
--interactive`.
"""
