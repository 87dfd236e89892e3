#!/usr/bin/env python3
"""Robust accuracy under limbeck's attacks and under those of torchattacks, ART and foolbox: the same weights, images and settings.

Prints a row for each attack and program: the share of images that are still read right, the mean L2 length of the perturbations of the others,
and the seconds. The images are those that the model reads right, so an attack that does nothing scores 100 %. Every program's images are
cut to the ball and judged by the same PyTorch model. Exits with 1 where limbeck's attack is weaker than a peer's by more than --slack points.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from limbeck_weights import Classifier

warnings.filterwarnings("ignore")

BATCH = 128
LOGITS_AGREE = 1e-4

# Attacks whose one random start decides on some images: several seeds, and their mean.
DRAWN = ("pgd", "gaussian-noise", "uniform-noise")


def main():
    options = command_line().parse_args()
    torch.set_num_threads(options.threads)
    model = Classifier(options.model).eval()
    images, labels = read_right(model, *load(options.images, options.size, model.spec["image_size"]), options.count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.safetensors"
        save_file({"images": images, "labels": labels}, path)
        ours = Limbeck(options.limbeck, options.model, path)
        with torch.no_grad():
            gap = (model(images) - torch.tensor(ours.ask("logits")["logits"]).reshape(len(images), -1)).abs().max()
        print(f"{len(images)} images; logits of limbeck and PyTorch differ by {gap:.1e} at most", flush=True)
        if gap > LOGITS_AGREE:
            sys.exit(f"more than {LOGITS_AGREE}: not the same network")
        weaker = [name for name, runs in pairs(options) if wanted(name, options) and weak(name, runs, ours, model, images, labels, options)]
    if weaker:
        sys.exit(f"weaker than a peer by more than {options.slack} points: {', '.join(weaker)}")


def command_line():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a classifier that `limbeck train` wrote")
    parser.add_argument("images", help="a parquet file with the columns image and label, as Hugging Face stores them")
    parser.add_argument("--limbeck", required=True, help="the example attack_images, built with cargo build --release --examples")
    parser.add_argument("--count", type=int, default=256, help="images to attack (default: 256)")
    parser.add_argument("--size", type=int, default=4096, help="images to look for them among (default: 4096)")
    parser.add_argument("--linf", type=float, default=2 / 255, help="L-infinity radius (default: 2/255)")
    parser.add_argument("--l2", type=float, default=0.25, help="L2 radius (default: 0.25)")
    parser.add_argument("--attack", action="append", help="only attacks whose name has this in it; may be given more than once")
    parser.add_argument("--peer", action="append", help="only these programs; may be given more than once")
    parser.add_argument("--slack", type=float, default=0.5, help="points by which a peer may be stronger (default: 0.5)")
    parser.add_argument("--seeds", type=int, default=8, help="seeds for PGD and noise, of which the mean counts (default: 8)")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def wanted(name, options):
    return not options.attack or any(word in name for word in options.attack)


def load(path, most, image_size):
    """Images `[count, 3, height, width]` in `[0, 1]`, in 8 bits, and their labels."""
    import pyarrow.parquet as parquet
    from PIL import Image

    rows = parquet.read_table(path).to_pylist()
    order = np.random.default_rng(0).permutation(len(rows))[:most]
    height, width = image_size
    label = next(name for name in ("label", "labels", "ClassId") if name in rows[0])
    images, labels = [], []
    for index in order:
        picture = rows[index]["image"]
        picture = Image.open(io.BytesIO(picture["bytes"] if isinstance(picture, dict) else picture))
        images.append(np.asarray(picture.convert("RGB").resize((width, height), Image.BILINEAR)))
        labels.append(int(rows[index][label]))
    images = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return images.contiguous(), torch.tensor(labels)


def read_right(model, images, labels, count):
    right = (answers(model, images) == labels).nonzero().flatten()[:count]
    return images[right].contiguous(), labels[right].contiguous()


def answers(model, images):
    with torch.no_grad():
        return torch.cat([model(batch).argmax(1) for batch in images.split(BATCH)])


class Limbeck:
    """The example program, which keeps model and images and answers one line for each line."""

    def __init__(self, program, model, images):
        self.process = subprocess.Popen(
            [program, model, images], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("limbeck's program ended early")
        return json.loads(line)


def weak(name, runs, ours, model, images, labels, options):
    """Runs one attack in every program, prints the rows, and says whether limbeck's is the weaker."""
    config, peers = runs
    seeds = range(options.seeds if config["kind"] in DRAWN else 1)
    found = [ours.ask({**config, "seed": seed}) for seed in seeds]
    robust = {"limbeck": show(name, "limbeck", [(run["right"], run["l2"], run["seconds"]) for run in found])}
    for program, build in peers.items():
        if options.peer and program not in options.peer:
            continue
        runs = []
        try:
            for seed in seeds:
                torch.manual_seed(seed)
                np.random.seed(seed)
                start = time.perf_counter()
                attack = build(model)
                attacked = torch.cat([attack(*batch) for batch in zip(images.split(BATCH), labels.split(BATCH))])
                seconds = time.perf_counter() - start
                attacked = project(config, images, attacked.detach().float())
                lengths = (attacked - images).flatten(1).norm(dim=1)
                runs.append((answers(model, attacked) == labels, lengths, seconds))
        except Exception as error:  # A peer that fails is a row of the table, not the end of it.
            print(f"{name:20} {program:13} failed: {type(error).__name__}: {str(error)[:80]}", flush=True)
            continue
        robust[program] = show(name, program, runs)
    return any(robust["limbeck"] > share + options.slack for share in robust.values())


def show(name, program, runs):
    """Prints the means over the runs of one program; gives the robust accuracy in percent."""
    right, lengths = (torch.cat([torch.as_tensor(run[part]) for run in runs]) for part in (0, 1))
    seconds = sum(run[2] for run in runs) / len(runs)
    share = 100 * right.float().mean().item()
    fooled = lengths[~right]
    length = f"{fooled.mean():.4f}" if len(fooled) else "-"
    print(f"{name:20} {program:13} robust {share:6.2f} %   L2 {length:>7}   {seconds:7.1f} s", flush=True)
    return share


def project(config, images, attacked):
    change = attacked - images
    eps = config["eps"]
    if config["norm"] == "linf":
        return (images + change.clamp(-eps, eps)).clamp(0, 1)
    norms = change.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1)
    # A little more than eps is the rounding of 32-bit numbers.
    return (images + change * torch.where(norms > eps * (1 + 1e-5) + 1e-5, eps / norms, 1.0)).clamp(0, 1)


def pairs(options):
    """Name of each attack with limbeck's settings and the same attack of the peers."""
    classes = 10  # The nine most likely wrong classes, as AutoAttack has it.
    for norm, eps in (("linf", options.linf), ("l2", options.l2)):
        step = eps / 4

        def row(kind, peers, norm=norm, eps=eps, **settings):
            return f"{kind} {norm}", ({"kind": kind, "norm": norm, "eps": eps, **settings}, peers)

        ta, order, big = {"linf": "Linf", "l2": "L2"}[norm], {"linf": np.inf, "l2": 2}[norm], norm == "linf"
        yield row("gaussian-noise", {})
        yield row("uniform-noise", {"foolbox": foolbox("LinfAdditiveUniformNoiseAttack", eps)} if big else {})
        peers = {"art": art("FastGradientMethod", norm=order, eps=eps)}
        peers |= {"torchattacks": torchattacks("FGSM", eps=eps)} if big else {}
        yield row("fgsm", peers | {"foolbox": foolbox("LinfFastGradientAttack" if big else "L2FastGradientAttack", eps)})
        walk = {"step": step, "steps": 10}
        bim = {"rel_stepsize": 0.25, "steps": 10, "random_start": False}
        peers = {"foolbox": foolbox("LinfBasicIterativeAttack" if big else "L2BasicIterativeAttack", eps, **bim)}
        if big:
            peers["torchattacks"] = torchattacks("BIM", eps=eps, alpha=step, steps=10)
            peers["art"] = art("BasicIterativeMethod", eps=eps, eps_step=step, max_iter=10)
        yield row("i-fgsm", peers, **walk)
        pgd = torchattacks("PGD" if big else "PGDL2", eps=eps, alpha=step, steps=10)
        madry = art("ProjectedGradientDescent", norm=order, eps=eps, eps_step=step, max_iter=10, num_random_init=1)
        starts = foolbox("LinfPGD" if big else "L2PGD", eps, rel_stepsize=0.25, steps=10)
        yield row("pgd", {"torchattacks": pgd, "art": madry, "foolbox": starts}, **walk)
        momentum = art("MomentumIterativeMethod", norm=order, eps=eps, eps_step=step, max_iter=10, decay=1.0)
        peers = {"torchattacks": torchattacks("MIFGSM", eps=eps, alpha=step, steps=10, decay=1.0)} if big else {}
        yield row("mi-fgsm", peers | {"art": momentum}, **walk)
        if not big:
            carlini = foolbox("L2CarliniWagnerAttack", eps, binary_search_steps=9, steps=200, stepsize=0.01)
            single = torchattacks("CW", c=1, kappa=0, steps=200, lr=0.01)
            # A wide ball shows the lengths that were found, a narrow one how many of them are short.
            yield row("carlini-wagner", {"foolbox": carlini, "torchattacks": single}, steps=200)
        yield row("universal", {}, **walk)
        ce = {"torchattacks": torchattacks("APGD", norm=ta, eps=eps, steps=100, loss="ce")}
        ce["art"] = art("AutoProjectedGradientDescent", norm=order, eps=eps, eps_step=2 * eps, max_iter=100, nb_random_init=1, loss_type="cross_entropy")
        yield row("apgd-ce", ce)
        yield row("apgd-dlr", {"torchattacks": torchattacks("APGD", norm=ta, eps=eps, steps=100, loss="dlr")})
        yield row("apgd-t", {"torchattacks": torchattacks("APGDT", norm=ta, eps=eps, steps=100, n_classes=classes)})
        fab = torchattacks("FAB", norm=ta, eps=eps, steps=100, multi_targeted=True, n_classes=classes)
        yield row("fab-t", {"torchattacks": fab})
        square = {"torchattacks": torchattacks("Square", norm=ta, eps=eps, n_queries=5000)}
        square["art"] = art("SquareAttack", norm=order, eps=eps, max_iter=5000, nb_restarts=1)
        yield row("square", square)
        yield row("auto-attack", {"torchattacks": auto_attack(ta, eps, classes)})


def torchattacks(name, **settings):
    def build(model):
        import torchattacks as package

        return getattr(package, name)(model, **settings)

    return build


def auto_attack(norm, eps, classes):
    """torchattacks' parts of AutoAttack with the published number of steps: its own AutoAttack takes ten."""

    def build(model):
        import torchattacks as package

        common = {"norm": norm, "eps": eps}
        return package.MultiAttack(
            [
                package.APGD(model, steps=100, loss="ce", **common),
                package.APGDT(model, steps=100, n_classes=classes, **common),
                package.FAB(model, steps=100, multi_targeted=True, n_classes=classes, **common),
                package.Square(model, n_queries=5000, **common),
            ]
        )

    return build


def art(name, **settings):
    def build(model):
        import art.attacks.evasion as package
        from art.estimators.classification import PyTorchClassifier

        height, width = model.spec["image_size"]
        classifier = PyTorchClassifier(
            model=model,
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=(3, height, width),
            nb_classes=len(model.spec["classes"]),
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        silent = {} if name == "FastGradientMethod" else {"verbose": False}
        attack = getattr(package, name)(classifier, batch_size=BATCH, **settings, **silent)
        return lambda images, labels: torch.tensor(attack.generate(images.numpy(), labels.numpy()))

    return build


def foolbox(name, eps, **settings):
    def build(model):
        import foolbox as package

        wrapped = package.PyTorchModel(model, bounds=(0, 1), device="cpu")
        attack = getattr(package.attacks, name)(**settings)
        return lambda images, labels: attack(wrapped, images, labels, epsilons=eps)[1]

    return build


if __name__ == "__main__":
    main()
