"""Sweep files read strictly, multiplied out to cells, and the records by which finished work is found again."""
