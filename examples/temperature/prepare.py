"""Write the demo's data: one Zarr store per climate scenario.

    python prepare.py [FOLDER]

Surface air temperature over North America, annual means of 1860 to 2099, from two projections of
the Met Office Unified Model: A1B (no climate policy) and E1 (strong mitigation). Source: the PyPI
package iris-sample-data, Open Government Licence, British Crown copyright.
"""

import sys
import tempfile
from pathlib import Path

import iris_sample_data
import xarray as xr

FILES = {"a1b": "A1B_north_america.nc", "e1": "E1_north_america.nc"}
LICENCE = "British Crown copyright, Open Government Licence"
HERE = Path(__file__).resolve().parent


def prepare(folder: str | Path) -> dict[str, Path]:
    """Write ``a1b.zarr`` and ``e1.zarr`` into a folder, unless they are there.

    A store appears under its name only once it is whole.

    Parameters
    ----------
    folder : path
        Made if it is missing.

    Returns
    -------
    dict of str to Path
        The stores by scenario. Each holds ``air_temperature`` (240 years, 37 latitudes,
        49 longitudes; K) and its coordinates, ``year`` among them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stores = {scenario: folder / f"{scenario}.zarr" for scenario in FILES}
    for scenario, store in stores.items():
        if not store.exists():
            _write(Path(iris_sample_data.path, FILES[scenario]), store)
    return stores


def _write(source: Path, store: Path) -> None:
    with (
        xr.open_dataset(source) as dataset,
        tempfile.TemporaryDirectory(dir=store.parent, prefix=".making-") as scratch,
    ):
        fields = dataset["air_temperature"].reset_coords(drop=True)
        fields = fields.assign_coords(year=fields["time"].dt.year)
        written = fields.to_dataset().assign_attrs(source=source.name, license=LICENCE)
        written.to_zarr(
            Path(scratch, store.name),
            zarr_format=3,
            consolidated=False,
            encoding={"air_temperature": {"chunks": (60, 37, 49)}},  # 60 years: 0.4 MB
        )
        try:
            Path(scratch, store.name).rename(store)
        except OSError:
            if not store.exists():  # else another process was faster: same data, all is well
                raise


if __name__ == "__main__":
    for store in prepare(sys.argv[1] if len(sys.argv) > 1 else HERE / "data").values():
        print(store)
