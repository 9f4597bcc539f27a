"""Model files from strangers: what kind a file is, told from its header; tensors read safely from safetensors and
pickles; layers under their original and ComfyUI names; weights written. No network is built here.
"""
