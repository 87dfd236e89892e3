#!/usr/bin/env python3
"""Poison that alibi-detect finds: OutlierAE by reconstruction error, and AdversarialAE by the divergence of a classifier's answers.

Both autoencoders learn from the audited images, as limbeck's does, with alibi-detect's own defaults (20 epochs); thresholds are inferred on the trusted images.
"""

import argparse
import json
import os
import time

# Read when TensorFlow is imported: alibi-detect is written for Keras 2, and the notices would hide an error.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from alibi_detect.ad import AdversarialAE
from alibi_detect.od import OutlierAE

from alibi_outlier_ae import autoencoder
from poisoned_set import load

layers = tf.keras.layers


def classifier(width, classes):
    """limbeck's `vgg`: three stages of two 3x3 convolutions with batch norm and ReLU, each stage pooled, and a dense head."""
    trunk = [layers.InputLayer((32, 32, 3))]
    for stage in (width, 2 * width, 4 * width):
        for _ in range(2):
            trunk += [layers.Conv2D(stage, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
        trunk.append(layers.MaxPool2D())
    head = [layers.Flatten(), layers.Dropout(0.2), layers.Dense(128, activation="relu"), layers.Dense(classes, activation="softmax")]
    return tf.keras.Sequential(trunk + head)


def train(images, labels, options):
    network = classifier(options.width, int(labels.max()) + 1)
    steps = options.epochs * -(-len(images) // options.batch)
    rate = tf.keras.optimizers.schedules.CosineDecay(options.rate, steps)
    network.compile(tf.keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    network.fit(images, labels, batch_size=options.batch, epochs=options.epochs, verbose=0)
    return network


def outlier_ae(images, trusted, options):
    detector = OutlierAE(threshold=0.0, **autoencoder())
    detector.fit(images, verbose=False)
    detector.infer_threshold(trusted, threshold_perc=options.percentile, batch_size=256)
    return detector.score(images, batch_size=256)[1], detector.threshold


def adversarial_ae(images, trusted, options, network):
    detector = AdversarialAE(threshold=0.0, model=network, **autoencoder())
    detector.fit(images, verbose=False)
    detector.infer_threshold(trusted, threshold_perc=options.percentile, batch_size=256)
    return detector.score(images, batch_size=256), detector.threshold


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("--share", type=float, help="true share of poison; not used")
    for name, kind in (("width", int), ("epochs", int), ("batch", int), ("rate", float), ("threads", int), ("percentile", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args()
    tf.random.set_seed(0)
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    images, labels, trusted = load(options.images)
    start = time.perf_counter()
    network = train(images, labels, options)
    classifier_seconds = time.perf_counter() - start
    detectors = {
        "AdversarialAE, KL": lambda: adversarial_ae(images, trusted, options, network),
        "OutlierAE, mean squared error": lambda: outlier_ae(images, trusted, options),
    }
    rows = []
    for name, detect in detectors.items():
        begun = time.perf_counter()
        scores, threshold = detect()
        seconds = time.perf_counter() - begun
        rows.append({"detector": name, "scores": scores.tolist(), "flagged": (scores > threshold).tolist(), "seconds": seconds})
    print(json.dumps({"classifier_seconds": classifier_seconds, "rows": rows}))


if __name__ == "__main__":
    main()
