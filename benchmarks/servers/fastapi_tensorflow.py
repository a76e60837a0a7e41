"""FastAPI with a TensorFlow SavedModel, one image per call: a typical first version."""

import os
from pathlib import Path

import tensorflow as tf
from fastapi import FastAPI, Request

from trainer import artifact
from trainer.artifact.prediction import prediction
from trainer.images.decode import decode

loaded = artifact.load(Path(os.environ["ARTIFACT"]))
model = tf.saved_model.load(str(loaded.saved_model))
signature = model.signatures["serving_default"]
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, object]:
    image = decode(await request.body(), loaded.pixels)
    outputs = signature(images=tf.constant(image[None]))
    return prediction({name: rows.numpy()[0] for name, rows in outputs.items()}, loaded.class_names, loaded.threshold)


@app.get("/readyz")
async def readyz() -> str:
    return "ready"
