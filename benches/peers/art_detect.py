#!/usr/bin/env python3
"""Poison that ART finds: its ActivationDefence and its SpectralSignatureDefense, on a PyTorch classifier that is trained on the poisoned set."""

import argparse
import json
import time

import numpy as np
import torch
from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense
from art.estimators.classification import PyTorchClassifier
from torch import nn

from poisoned_set import load


class Classifier(nn.Module):
    """limbeck's `vgg`: three stages of two 3x3 convolutions with batch norm and ReLU, each stage pooled, and a dense head."""

    def __init__(self, width, classes):
        super().__init__()
        layers, channels = [], 3
        for stage in (width, 2 * width, 4 * width):
            for _ in range(2):
                layers += [nn.Conv2d(channels, stage, 3, padding=1), nn.BatchNorm2d(stage), nn.ReLU()]
                channels = stage
            layers.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.output = nn.Linear(128, classes)
        # ART's detectors take the last module that is registered, which is to be the last hidden layer as in both papers, not the logits.
        self.hidden = nn.Sequential(nn.Linear(4 * width * 16, 128), nn.ReLU())

    def forward(self, images):
        return self.output(self.hidden(self.trunk(images)))


def train(images, labels, options):
    """As limbeck trains its own: Adam, one cycle, but without augmentation."""
    network = Classifier(options.width, int(labels.max()) + 1)
    steps = options.epochs * -(-len(images) // options.batch)
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, total_steps=steps)
    images, targets = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(options.epochs):
        for chosen in torch.randperm(len(images)).split(options.batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), targets[chosen]).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def activation_clustering(classifier, images, labels, options):
    """Verdicts alone: the smaller cluster of each class. Its other analyses fail: by silhouette with an IndexError, and by relative size with a ValueError where no cluster is small enough."""
    defence = ActivationDefence(classifier, images, labels)
    _, is_clean = defence.detect_poison(cluster_analysis="smaller")
    yield "activation clustering, smaller", None, [not clean for clean in is_clean]


def spectral_signature(classifier, images, labels, options):
    """Its verdicts when it is told the true share of poison, and the scores of all images, which it reports of those that it removes."""
    defence = SpectralSignatureDefense(classifier, images, labels, expected_pp_poison=options.share)
    _, is_clean = defence.detect_poison()
    scores, _ = defence.detect_poison(expected_pp_poison=1.0)
    yield "spectral signature", [float(scores.get(index, 0.0)) for index in range(len(images))], [not clean for clean in is_clean]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images")
    parser.add_argument("--share", type=float, required=True, help="true share of poison")
    for name, kind in (("width", int), ("epochs", int), ("batch", int), ("rate", float), ("threads", int), ("percentile", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_num_threads(options.threads)
    images, labels, _ = load(options.images)
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    start = time.perf_counter()
    network = train(images, labels, options)
    trained = time.perf_counter()
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), input_shape=images.shape[1:], nb_classes=int(labels.max()) + 1, clip_values=(0, 1), device_type="cpu"
    )
    rows = []
    for detect in (activation_clustering, spectral_signature):
        begun = time.perf_counter()
        for name, scores, flagged in detect(classifier, images, labels, options):
            rows.append({"detector": name, "scores": scores, "flagged": flagged, "seconds": time.perf_counter() - begun})
    print(json.dumps({"classifier_seconds": trained - start, "rows": rows}))


if __name__ == "__main__":
    main()
