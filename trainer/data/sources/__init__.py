"""Dataset spec → source of encoded images: folders, tables, TFDS, built-in digits."""
