"""To and from other programs and the hub: exports that are loaded back and compared before they count, LoRAs and
embeddings taken in as finished runs.
"""
