#!/usr/bin/env python3
"""Images a second that torchattacks crafts: 10 steps of BIM, which is I-FGSM, at 8/255."""

import torch
import torchattacks

from measure import TRAINING_BATCH, command_line, report
from networks import CLASSES, Classifier


def main():
    options = command_line(__doc__, ["craft"]).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    attack = torchattacks.BIM(Classifier().eval(), eps=8 / 255, alpha=2 / 255, steps=10)
    images, labels = torch.rand(TRAINING_BATCH, 3, 32, 32), torch.randint(0, CLASSES, (TRAINING_BATCH,))
    report(options, TRAINING_BATCH, lambda: attack(images, labels))


if __name__ == "__main__":
    main()
