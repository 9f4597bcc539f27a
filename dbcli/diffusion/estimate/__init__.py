"""What a recipe will take of a device, by fake runs on a meta base, and how fast the device is."""
