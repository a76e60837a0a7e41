"""The BentoML model store: published atomically, read without importing BentoML.

BENTOML_HOME/models/NAME/VERSION/ holds a version with its model.yaml; BENTOML_HOME/models/NAME/latest names the
promoted version, the one that NAME alone means.
"""

from trainer.artifact.store.publishing import delete_drafts, promote, publish, refuse_unwritable
from trainer.artifact.store.stored_models import StoredModel, find, models, promoted

__all__ = ["StoredModel", "delete_drafts", "find", "models", "promote", "promoted", "publish", "refuse_unwritable"]
