"""Checks of a data set: duplicates, label issues, low-quality images, outliers and confusable classes.

`run` runs them all, each kind in a file of its own. `summary` puts the findings into words, `page` shows them with the
images, and `fix` writes a table without them. `pre_fit` has the cheap checks before a training.
"""
