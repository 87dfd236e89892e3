#!/usr/bin/env python3
"""Images a second that alibi-detect scores by reconstruction error: OutlierAE, which it has for TensorFlow only."""

import os

# Read when TensorFlow is imported: alibi-detect is written for Keras 2, and the notices would hide an error.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from alibi_detect.od import OutlierAE

from measure import INFERENCE_BATCH, command_line, report


def autoencoder():
    """D of networks.py, with channels last as TensorFlow wants them; what alibi-detect's detectors take as keywords."""
    layers = tf.keras.layers
    same = {"strides": 2, "padding": "same"}
    encoder = tf.keras.Sequential([
        layers.InputLayer((32, 32, 3)),
        layers.Conv2D(32, 3, activation="relu", **same),
        layers.Conv2D(64, 3, activation="relu", **same),
        layers.Conv2D(128, 3, activation="relu", **same),
        layers.Flatten(),
        layers.Dense(256),
    ])
    decoder = tf.keras.Sequential([
        layers.InputLayer((256,)),
        layers.Dense(2048, activation="relu"),
        layers.Reshape((4, 4, 128)),
        layers.Conv2DTranspose(64, 4, activation="relu", **same),
        layers.Conv2DTranspose(32, 4, activation="relu", **same),
        layers.Conv2DTranspose(3, 4, activation="sigmoid", **same),
    ])
    return {"encoder_net": encoder, "decoder_net": decoder}


def main():
    options = command_line(__doc__, ["score"]).parse_args()
    tf.random.set_seed(0)
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # Any threshold: scores do not depend on it.
    outliers = OutlierAE(threshold=0.0, **autoencoder())
    images = np.random.default_rng(0).random((INFERENCE_BATCH, 32, 32, 3), dtype=np.float32)
    report(options, INFERENCE_BATCH, lambda: outliers.score(images, batch_size=INFERENCE_BATCH))


if __name__ == "__main__":
    main()
