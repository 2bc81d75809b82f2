"""What an instrument was seen to do: one file a sitting and device, beside the records that were measured with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from inference_energy.errors import RecordError
from inference_energy.records import Base, EnergyMethod, Hardware


class Qualification(Base):
    """What the instrument was seen to do on this machine, in this sitting."""

    schema_version: Literal[1] = 1
    sitting: str
    campaign: str
    made_at_utc: str
    machine: str = Field(description="hash of host, boot and visible devices")
    hardware: Hardware
    driver: str | None
    energy_method: EnergyMethod
    period_s: float = Field(description="median time between two new values")
    period_min_s: float | None
    period_max_s: float | None
    resolution_j: float = Field(description="greatest common divisor of the steps seen")
    read_latency_s: float = Field(description="median")
    idle_power_w: float | None = Field(description="no process on the device")
    load_power_w: float | None = Field(description="by the counter, under matrix products")
    counter_over_power_ratio: float | None = Field(description="under that load")
    power_lag_s: float | None = Field(
        None,
        description="from the end of a load to instant power half way down to its waiting level, median of several",
    )
    launch_latency_s: float | None = Field(description="mean of 20,000 launches of a tiny kernel, without the sampler")
    launch_latency_sampled_s: float | None = Field(description="the same beside the sampler")
    cpu_benchmark_s: float = Field(description="a fixed loop in Python, median of 5")


def read(path: Path) -> Qualification:
    """Read one qualification.

    Raises
    ------
    RecordError
        If it is not one.
    """
    try:
        return Qualification.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(str(path), f"is no qualification: {error}", "", "Delete it: it is made again") from error


def read_all(folder: Path) -> list[Qualification]:
    """Every qualification in `folder`, in the order they were made; none where there is no such folder."""
    return sorted((read(path) for path in folder.glob("*.json")), key=lambda one: one.made_at_utc)
