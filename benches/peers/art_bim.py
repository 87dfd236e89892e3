#!/usr/bin/env python3
"""Images a second that the Adversarial Robustness Toolbox crafts: 10 steps of its basic iterative method, I-FGSM, at 8/255."""

import numpy as np
import torch
from art.attacks.evasion import BasicIterativeMethod
from art.estimators.classification import PyTorchClassifier

from measure import TRAINING_BATCH, command_line, report
from networks import CLASSES, Classifier


def main():
    options = command_line(__doc__, ["craft"]).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    classifier = PyTorchClassifier(
        model=Classifier().eval(),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(3, 32, 32),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = BasicIterativeMethod(
        classifier, eps=8 / 255, eps_step=2 / 255, max_iter=10, batch_size=TRAINING_BATCH, verbose=False
    )
    draw = np.random.default_rng(0)
    images = draw.random((TRAINING_BATCH, 3, 32, 32), dtype=np.float32)
    labels = draw.integers(0, CLASSES, TRAINING_BATCH)
    report(options, TRAINING_BATCH, lambda: attack.generate(images, labels))


if __name__ == "__main__":
    main()
