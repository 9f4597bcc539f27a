"""The terminal itself: results on stdout and the rest on stderr, progress bars, tables, images in terminals that show
them.
"""
