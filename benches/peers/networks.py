"""The two networks that every PyTorch-based peer runs, with fresh weights: T, a classifier, and D, an autoencoder.

Both take `[batch, 3, 32, 32]` in `[0, 1]`. Speed does not depend on the weights, so nothing is trained or loaded.
"""

from torch import nn

CLASSES = 43


class Classifier(nn.Module):
    """T: three stages of two 3x3 convolutions with batch norm and ReLU, each stage pooled, and a dense head."""

    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for width in (32, 64, 128):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        # Apart from each other, so that dropout passes can share one run of the trunk.
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(2048, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, CLASSES))

    def forward(self, images):
        return self.head(self.trunk(images))


class Autoencoder(nn.Module):
    """D: three strided convolutions, a latent vector of 256, three transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2048, 256),
        )
        self.decoder = nn.Sequential(
            nn.Linear(256, 2048),
            nn.ReLU(),
            nn.Unflatten(1, (128, 4, 4)),
            nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, images):
        return self.decoder(self.encoder(images))
