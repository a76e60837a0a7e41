"""Cache of decoded images and features on disk, built once for each data set."""
