"""Trained network → the files that are served."""
