"""Families of models as data and a few functions: their parts, how prompts condition them, how noise is added and taken
away, how their denoiser is called. Nothing is downloaded, kept small or trained in here, and nobody outside asks which
family a base is of.
"""
