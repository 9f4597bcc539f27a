"""Noise schedules: samplers by the names people use, the timestep they begin at, and what a UNet predicts."""
