"""Forecast another scenario with an emulator that ``train.py`` has trained.

The years 2070 to 2099 of the scenario are forecast, each from those before it, and written to
``forecast.zarr``. Errors are those of ``train.py``: root mean squares in K, weighted by area.
"""

import torch
import zarr
from torch import Tensor
from train import FIRST_TEST_YEAR, Emulator, load, pairs

import hpcml


def main() -> None:
    hpcml.params()  # none: what the model is like stands in its file

    with hpcml.phase("load"):
        saved = torch.load(hpcml.input_path("model", "model.pt"), weights_only=True)
        model = Emulator(**saved["size"])
        model.load_state_dict(saved["state"])
        fields, years, area = load(hpcml.input_path("t2m", "data/e1.zarr"))
        history = saved["size"]["history"]
        before, target = pairs(fields, history)
        chosen = years[history:] >= FIRST_TEST_YEAR
        before, target = before[chosen], target[chosen]
    hpcml.describe(model=f"conv-{saved['size']['width']}", precision="float32")

    with hpcml.phase("infer"), torch.inference_mode():
        forecast = model(before)
        hpcml.log(samples=len(forecast))

    def root_mean_square(prediction: Tensor) -> float:
        return float((area * (prediction - target) ** 2).mean().sqrt())  # K

    loss, persistence = root_mean_square(forecast), root_mean_square(before[:, -1])
    skill = 1 - (loss / persistence) ** 2
    hpcml.log(test_loss=loss, persistence_loss=persistence, skill=skill)

    with hpcml.phase("save"):
        store = zarr.open_group(hpcml.output_path("forecast.zarr"), mode="w")
        store.create_array("air_temperature", data=forecast.numpy())
        store.create_array("year", data=years[history:][chosen].numpy())

    print(f"test_loss {loss:.3f}, persistence_loss {persistence:.3f}, skill {skill:.3f}")


if __name__ == "__main__":
    main()
