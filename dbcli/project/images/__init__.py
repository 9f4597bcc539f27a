"""Image files: decoding what a stranger made to upright 8-bit sRGB pixels, and the recipe that every generated PNG
carries, in our own JSON and in AUTOMATIC1111's text.
"""
