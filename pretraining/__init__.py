"""How the embedded base and its judges are made: pictures, autoencoder, CLIP, UNet, judges, packing, measuring.

Nothing here is needed at run time. Every stage is a module with a `main`, resumes from its own checkpoint,
and runs on CPU and CUDA alike; `python -m pretraining.all --toy` runs the whole chain at toy size.
"""
