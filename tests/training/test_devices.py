import logging
import warnings
from types import SimpleNamespace

import pytest

from simformer_ppl.exceptions import DeviceWarning, SimformerWarning
from simformer_ppl.training import devices


def test_a_gpu_that_jax_does_not_see_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(devices, "_GPUS", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        devices.tell_devices(64)  # a driver without a GPU
        (tmp_path / "0000:01:00.0").mkdir()
        with monkeypatch.context() as meant:
            meant.setattr(devices.jax, "config", SimpleNamespace(jax_platforms="cpu"))
            devices.tell_devices(64)
    with pytest.warns(DeviceWarning, match="pip install") as told:
        devices.tell_devices(64)
    assert issubclass(DeviceWarning, SimformerWarning)
    assert told[0].filename == __file__


def test_devices_are_logged(caplog):
    with caplog.at_level(logging.INFO, "simformer_ppl"):
        devices.tell_devices(64)
    kind = devices.jax.devices()[0].device_kind
    assert caplog.messages == [f"training on 1 x {kind}"]
