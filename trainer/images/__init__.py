"""Encoded bytes → uint8 pixels, the same for training and for serving."""
