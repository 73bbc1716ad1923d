"""Train an emulator of annual mean temperature fields and test it on years it never saw.

The years up to 2069 train it, the 30 years 2070 to 2099 test it; what the sizes, the learning rate
and the history should be was tried on years before 2070 only. Losses are root mean square errors
in K, weighted by the area of the grid cells. The forecast to beat is persistence: next year is
like this one. ``skill`` is 1 - (test_loss / persistence_loss)^2: 0 is persistence, 1 is perfect.

The same file runs on any site (``demo.py``) and by hand (``python train.py``). The number of CPU
threads is PyTorch's to take from OMP_NUM_THREADS.
"""

import os
import sys

import torch
import zarr
from torch import Tensor, nn

import hpcml

FIRST_TEST_YEAR = 2070


class Emulator(nn.Module):
    """Predicts a year's temperature field from those of the years before it.

    It sees differences to the latest year, so that a climate warmer than any in training looks
    familiar, and predicts the change. Untrained, it is the persistence forecast.

    Parameters
    ----------
    history : int
        Number of years it is given.
    width : int
        Channels of each hidden layer.
    scale : float
        Typical difference between two years, in K.
    """

    scale: Tensor

    def __init__(self, history: int, width: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.layers = nn.Sequential(
            nn.Conv2d(history, width, 3, padding=1, padding_mode="replicate"),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.GELU(),
            nn.Conv2d(width, 1, 3, padding=1, padding_mode="replicate"),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, years: Tensor) -> Tensor:
        """Map (batch, history, latitude, longitude) in K to (batch, latitude, longitude) in K."""
        latest = years[:, -1:]
        change = self.scale * self.layers((years - latest) / self.scale)
        return (latest + change).squeeze(1)


def load(path: str) -> tuple[Tensor, Tensor, Tensor]:
    """Read a store that ``prepare.py`` has written.

    Returns
    -------
    fields : (year, latitude, longitude) tensor
        Surface air temperature, in K.
    years : (year,) tensor
    area : (latitude, 1) tensor
        Weights of the grid cells: cos(latitude) divided by its mean.
    """
    if not os.path.exists(path):
        sys.exit(f"There is no data at {path}: run prepare.py first, both in this script's folder.")
    store = zarr.open_group(path, mode="r")
    fields, years, latitude = (
        torch.from_numpy(store[name][:]) for name in ("air_temperature", "year", "latitude")
    )
    area = torch.cos(torch.deg2rad(latitude))
    return fields, years, (area / area.mean())[:, None]


def pairs(fields: Tensor, history: int) -> tuple[Tensor, Tensor]:
    """The years before each target, (year, history, latitude, longitude), and the targets."""
    before = fields.unfold(0, history, 1)[:-1].movedim(-1, 1)
    return before, fields[history:]


def main() -> None:
    p = hpcml.params(width=32, history=5, epochs=15, batch=16, lr=2e-3, seed=0)
    hpcml.describe(model=f"conv-{p.width}", precision="float32", global_batch=p.batch)

    with hpcml.phase("load"):
        fields, years, area = load(hpcml.input_path("t2m", "data/a1b.zarr"))
        before, target = pairs(fields, p.history)
        target_year = years[p.history :]
        train, test = target_year < FIRST_TEST_YEAR, target_year >= FIRST_TEST_YEAR
        scale = fields[years < FIRST_TEST_YEAR].diff(dim=0).std().item()

    def squared_error(prediction: Tensor, truth: Tensor) -> Tensor:
        return (area * (prediction - truth) ** 2).mean()  # K^2

    with hpcml.phase("setup"):
        torch.manual_seed(p.seed)
        model = Emulator(p.history, p.width, scale)
        optimizer = torch.optim.AdamW(model.parameters(), lr=p.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, p.epochs)

    with hpcml.phase("train"):
        samples = int(train.sum())
        for epoch in range(p.epochs):
            with hpcml.phase("epoch"):
                total = 0.0
                for chosen in train.nonzero().squeeze(1)[torch.randperm(samples)].split(p.batch):
                    loss = squared_error(model(before[chosen]), target[chosen])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += loss.item() * len(chosen)
                schedule.step()
                hpcml.log(step=epoch, samples=samples, loss=(total / samples) ** 0.5)

    with hpcml.phase("validate"), torch.inference_mode():
        error = squared_error(model(before[test]), target[test])
        persistence = squared_error(before[test, -1], target[test])
        history_mean = squared_error(before[test].mean(1), target[test])  # harder to beat
        results = {
            "test_loss": error.sqrt().item(),
            "persistence_loss": persistence.sqrt().item(),
            "history_mean_loss": history_mean.sqrt().item(),
            "skill": 1 - (error / persistence).item(),
        }
    hpcml.log(**results)

    with hpcml.phase("save"):
        size = {"history": p.history, "width": p.width, "scale": scale}
        torch.save({"size": size, "state": model.state_dict()}, hpcml.output_path("model.pt"))

    print(", ".join(f"{name} {value:.3f}" for name, value in results.items()))


if __name__ == "__main__":
    main()
