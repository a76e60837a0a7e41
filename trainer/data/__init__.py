"""Dataset spec → decoded, split images with class names → tf.data. Importing it does not import TensorFlow."""

from trainer.data.augment import Augment, augment_for
from trainer.data.dataset import Dataset, Split, load, load_undivided
from trainer.data.pipeline import make_for_train

__all__ = ["Augment", "Dataset", "Split", "augment_for", "load", "load_undivided", "make_for_train"]
