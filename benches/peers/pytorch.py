#!/usr/bin/env python3
"""Images a second of PyTorch: training, input gradients, inference and dropout passes."""

import torch
from torch.nn import functional as F

from measure import INFERENCE_BATCH, TRAINING_BATCH, command_line, report
from networks import CLASSES, Autoencoder, Classifier

EAGER, CHANNELS_LAST, COMPILE = "eager", "channels-last", "compile"


class Workloads:
    """One method a workload; each returns the images of a step, and the step."""

    def __init__(self, mode):
        self.layout = torch.channels_last if mode == CHANNELS_LAST else torch.contiguous_format
        self.compile = torch.compile if mode == COMPILE else lambda model: model

    def images(self, batch):
        return torch.rand(batch, 3, 32, 32).contiguous(memory_format=self.layout)

    def prepare(self, model):
        return self.compile(model.to(memory_format=self.layout))

    def train(self):
        model = self.prepare(Classifier().train())
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        images, labels = self.images(TRAINING_BATCH), torch.randint(0, CLASSES, (TRAINING_BATCH,))
        # At the temperature of defensive distillation.
        return self.training(model, optimiser, lambda: F.cross_entropy(model(images) / 20.0, labels))

    def dae_train(self):
        model = self.prepare(Autoencoder().train())
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        images = self.images(TRAINING_BATCH)
        return self.training(model, optimiser, lambda: F.mse_loss(model(images), images))

    @staticmethod
    def training(model, optimiser, loss_of_batch):
        def step():
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of_batch()
            loss.backward()
            optimiser.step()

        return TRAINING_BATCH, step

    def inputgrad(self):
        # An attack needs no gradient of the weights, so PyTorch is spared them as well.
        model = self.prepare(Classifier().eval().requires_grad_(False))
        images, labels = self.images(TRAINING_BATCH), torch.randint(0, CLASSES, (TRAINING_BATCH,))

        def step():
            nonlocal images
            leaf = images.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels), leaf)
            images = (images + 0.004 * gradient.sign()).clamp_(0, 1)

        return TRAINING_BATCH, step

    def infer(self):
        return self.inference(Classifier())

    def dae_infer(self):
        return self.inference(Autoencoder())

    def inference(self, model):
        model, images = self.prepare(model.eval()), self.images(INFERENCE_BATCH)
        return INFERENCE_BATCH, torch.inference_mode()(lambda: model(images))

    def dropout_1(self):
        return self.infer()

    def dropout_32(self):
        # What limbeck does: the trunk once, the head with dropout 32 times.
        model = Classifier().eval()
        trunk, head = self.prepare(model.trunk), self.prepare(model.head.train())
        images = self.images(INFERENCE_BATCH)

        @torch.inference_mode()
        def step():
            features = trunk(images)
            return [head(features) for _ in range(32)]

        return INFERENCE_BATCH, step


def main():
    workloads = ["train", "inputgrad", "infer", "dae-train", "dae-infer", "dropout-1", "dropout-32"]
    options = command_line(__doc__, workloads, modes=[EAGER, CHANNELS_LAST, COMPILE]).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    images, step = getattr(Workloads(options.mode), options.workload.replace("-", "_"))()
    report(options, images, step)


if __name__ == "__main__":
    main()
