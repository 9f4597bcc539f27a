"""Generated images into a folder: every PNG with its recipe, written while the next is sampled; grids of them."""
