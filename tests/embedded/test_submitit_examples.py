"""The checkpointing example that submitit publishes, unchanged, and interrupted as it says.

It is taken from submitit's source distribution, which pip downloads once and pytest's cache keeps.
Two things are not submitit's: who submits and interrupts (its ``main`` does so by submitit's own
executor), and scikit-learn with its download of MNIST. A few lines of the same names stand for
that, on data made here: whether a classifier learns is not the question, and no other test needs
it. (What the example gets from ``fetch_openml`` it asks for ``.numpy()``; ours has that.)
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcml
from hpcml.job import Job
from tests.conftest import eventually
from tests.embedded.scene import Scene

RELEASE = "submitit-1.5.4"
SHA256 = "7100848bd1cdda79c7196e54ee830793ae75fd7adde0c5bef738d72360a07508"

SKLEARN = {
    "datasets": """
        import numpy as np
        class Table(np.ndarray):
            def numpy(self):
                return np.asarray(self)
        def fetch_openml(name, version, return_X_y):
            X = np.random.default_rng(0).normal(3.0, 2.0, (15000, 4))
            return X.view(Table), (X[:, 0] > X[:, 1]).astype(int).view(Table)
        """,
    "utils": """
        import numpy as np
        def check_random_state(seed):
            return np.random.RandomState(seed)
        """,
    "model_selection": """
        def train_test_split(X, y, train_size, test_size):
            rest = slice(train_size, train_size + test_size)
            return X[:train_size], X[rest], y[:train_size], y[rest]
        """,
    "preprocessing": """
        class StandardScaler:
            def fit_transform(self, X):
                self.mean, self.scale = X.mean(axis=0), X.std(axis=0)
                return self.transform(X)
            def transform(self, X):
                return (X - self.mean) / self.scale
        """,
    "linear_model": """
        import numpy as np
        class LogisticRegression:
            def __init__(self, **settings):
                self.settings = settings
            def fit(self, X, y):
                self.coef_ = np.linalg.lstsq(X, 2 * y - 1, rcond=None)[0]
            def score(self, X, y):
                return float(np.mean((X @ self.coef_ > 0) == y))
        """,
}


@pytest.fixture(scope="session")
def release(pytestconfig: pytest.Config) -> Path:
    """submitit's source distribution."""
    folder = pytestconfig.cache.mkdir(RELEASE)
    archive = folder / f"{RELEASE}.tar.gz"
    if not archive.exists():
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
        argv += [":all:", "--dest", str(folder), RELEASE.replace("-", "==")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"pip cannot download {RELEASE}: {done.stderr}"
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    return archive


@pytest.fixture
def mnist(
    release: Path, script: Callable[..., str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Makes docs/mnist.py importable here, as a file of the user's."""
    with tarfile.open(release) as archive:
        member = archive.extractfile(f"{RELEASE}/docs/mnist.py")
        assert member is not None
        (project / "mnist.py").write_bytes(member.read())
    for name, text in {"__init__": "", **SKLEARN}.items():
        script(text, f"sklearn/{name}.py")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mnist", "sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(project))
    return "mnist"


def test_the_mnist_example_goes_on_at_the_stage_where_it_was_interrupted(
    mnist: str, scene: Scene
) -> None:
    """Its second stage takes ten seconds; it is interrupted there."""
    import importlib

    example = importlib.import_module(mnist)
    trainer = example.MnistTrainer(
        example.LogisticRegression(penalty="l1", solver="saga", tol=0.1, multi_class="auto")
    )
    params = {"train_samples": 5000, "model_path": "model.pkl"}
    run = hpcml.submit(Job(trainer, params=params, outputs=["model.pkl"]))
    eventually(lambda: "stage 'Data Cleaning'" in run.logs() or run.state.final)
    assert run.state == "RUNNING", run.logs()
    os.kill(scene.agent(run), signal.SIGUSR2)

    score = run.result(60)

    assert len(run.attempts) == 2 and score > 0.9
    stages = [line for line in run.logs(stream="stdout").splitlines() if "stage" in line]
    assert stages == [
        "*** Starting from stage '0' ***",
        "*** Entering stage 'Data Loading' ***",
        "*** Entering stage 'Data Cleaning' ***",
        "Checkpointing at stage 'Data Cleaning'",
        "*** Starting from stage 'Data Cleaning' ***",
        "*** Entering stage 'Data Cleaning' ***",
        "*** Entering stage 'Model Training' ***",
    ]
    with open(run.output("model.pkl"), "rb") as file:
        scaler, classifier = pickle.load(file)
    assert len(scaler.mean) == len(classifier.coef_) == 4
