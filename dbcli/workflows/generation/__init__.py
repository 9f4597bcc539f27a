"""`generate`: one model or several LoRAs together, once or interactively, also with the recipe of an image that lies
before us.
"""
