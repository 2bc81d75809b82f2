"""Rows of devices: what each one's counter saw, and who used it."""

from __future__ import annotations

import math
from typing import Any

from inference_energy.readings import (
    counter_energies_j,
    counter_powers_w,
    intervals_of,
    key_of,
    rest_energies_j,
    value_at,
)
from inference_energy.records import Phase, Record

Row = dict[str, Any]


def device_rows(record: Record) -> list[Row]:
    """Rows of ``devices``: what each metered device's counter and power saw."""
    rest_j = rest_energies_j(record)
    rows = []
    for index, device in enumerate(record.hardware.devices):
        row: Row = {
            "sitting": record.identity.sitting,
            "host": record.hardware.host,
            "gpu_name": device.name,
            "gpu_uuid_hash": device.uuid_hash,
            "participates": device.participates,
            "status": record.status,
            "energy_method": record.meter.energy_method,
            "monotonic_started_s": record.monotonic_started_s,
            "wall_s": record.process_ended_s - record.process_started_s,
            "sampled_from_s": record.trace.time_s[0] if record.trace.time_s else None,
            "counter_started_j": value_at(record.counter_started_j, index),
            "counter_ended_j": value_at(record.counter_ended_j, index),
            "rest_energy_j": value_at(rest_j.tolist(), index),
        }
        phases: tuple[Phase, ...] = ("idle", "load", "warmup", "window", "idle_loaded")
        for phase in phases:
            intervals = [one for one in intervals_of(record, phase) if index < len(one.counter_opened_j)]
            energies_j = [float(counter_energies_j(one)[index]) for one in intervals]
            row[f"{phase}_energy_j"] = sum(energies_j)  # 0 without such an interval: a ledger's part, not a result
            if phase in ("idle", "window"):
                row[f"{phase}_power_w"] = float(counter_powers_w(intervals)[index]) if intervals else math.nan
        rows.append(key_of(record) | row)
    return rows


def device_check_rows(record: Record) -> list[Row]:
    """Rows of ``device_checks``: every visible device before, during and after a run."""
    return [
        key_of(record)
        | {"moment": check.moment, "time_s": check.time_s, "gpu_uuid_hash": state.uuid_hash}
        | state.model_dump(exclude={"uuid_hash"})
        for check in record.device_checks
        for state in check.devices
    ]
