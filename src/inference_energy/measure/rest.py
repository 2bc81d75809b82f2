"""The start of a run is gated on a rested GPU, rather than on sleeping for a fixed time.

After a process ends, a GPU goes on drawing more than its idle power for about a second: a run that
starts then takes over heat and power of the one before.
"""

from __future__ import annotations

from inference_energy.config import StartGate
from inference_energy.measure.devices import DeviceSet, powers_w, temperature_c
from inference_energy.measure.meter import Clock
from inference_energy.records import Start

#: How often power and temperature are read.
POLL_S = 0.02


def wait_until_rested(devices: DeviceSet, gate: StartGate, idle_power_w: float | None, clock: Clock) -> Start | None:
    """Wait until the GPUs that take part draw and are as warm as a rested one; not longer than the gate says.

    Parameters
    ----------
    idle_power_w : float or None
        Of a rested GPU, as the qualification saw it; None: power is not gated.

    Returns
    -------
    Start or None
        What was read last; None on a CPU. What the driver does not know is no reason to wait.
    """
    if not devices.handles:
        return None
    power_max_w = None if idle_power_w is None else idle_power_w + gate.power_above_idle_max_w
    working = [devices.handles[index] for index in devices.takes_part]
    started_s = clock.now()
    while True:
        power_w = [powers_w(handle)[0] for handle in working]
        heat_c = [temperature_c(handle) for handle in working]
        waited_s = clock.now() - started_s
        settled = _within(power_w, power_max_w) and _within(heat_c, gate.temperature_max_c)
        if settled or waited_s >= gate.wait_max_s:
            return Start(
                waited_s=waited_s,
                settled=settled,
                power_w=power_w,
                temperature_c=heat_c,
                power_max_w=power_max_w,
                temperature_max_c=gate.temperature_max_c,
            )
        clock.sleep(POLL_S)


def _within(values: list[float | None], limit: float | None) -> bool:
    return limit is None or all(value is None or value <= limit for value in values)
