"""Encoded image bytes → uint8 pixels, the same for training and serving."""
