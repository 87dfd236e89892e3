"""limbeck's classifiers in PyTorch: the weights and the spec of a safetensors file that `limbeck train` wrote."""

import json

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

EPSILON = 1e-5

# Blocks in each stage, by architecture; a VGG has none.
STAGES = {"resnet8": [1] * 3, "resnet10": [1] * 4, "resnet14": [2] * 3, "resnet18": [2] * 4}


class Classifier(nn.Module):
    """Logits `[batch, classes]` of images `[batch, 3, height, width]` in `[0, 1]`, in inference mode."""

    def __init__(self, path):
        super().__init__()
        with safe_open(path, "pt") as file:
            self.spec = json.loads(file.metadata()["limbeck"])["spec"]
            for name in file.keys():
                self.register_buffer(name.replace(".", "_"), file.get_tensor(name))
        for part in ("mean", "std"):
            value = torch.tensor(self.spec["normalisation"][part]).reshape(1, 3, 1, 1)
            self.register_buffer(part, value)

    def part(self, *path):
        return getattr(self, "_".join(map(str, path)))

    def convolution(self, images, *path, stride=1):
        weight = self.part(*path, "weight")
        images = functional.conv2d(images, weight, stride=stride, padding=weight.shape[2] // 2)
        names = ("running_mean", "running_var", "gamma", "beta")
        return functional.batch_norm(images, *(self.part(*path, "norm", name) for name in names), eps=EPSILON)

    def vgg(self, images):
        for block in range(6):
            images = functional.relu(self.convolution(images, "trunk_Vgg_blocks", block))
            if block % 2 == 1:
                images = functional.max_pool2d(images, 2)
        return images.flatten(1)

    def residual(self, images):
        images = functional.relu(self.convolution(images, "trunk_ResNet_stem"))
        place = 0
        for stage, blocks in enumerate(STAGES[self.spec["architecture"]]):
            for block in range(blocks):
                path, stride = ("trunk_ResNet_blocks", place), 2 if stage > 0 and block == 0 else 1
                projected = hasattr(self, "_".join(map(str, (*path, "projection", "weight"))))
                shortcut = self.convolution(images, *path, "projection", stride=stride) if projected else images
                images = functional.relu(self.convolution(images, *path, "first", stride=stride))
                images = functional.relu(self.convolution(images, *path, "second") + shortcut)
                place += 1
        return images.mean((2, 3))

    def forward(self, images):
        trunk = self.vgg if self.spec["architecture"] == "vgg" else self.residual
        features = trunk((images - self.mean) / self.std)
        hidden = functional.relu(features @ self.part("hidden", "weight") + self.part("hidden", "bias"))
        return hidden @ self.part("output", "weight") + self.part("output", "bias")
