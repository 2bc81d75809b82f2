"""Energy per output token of every run under named accountings: whose energy, gross or net."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.models.deployments import is_deployment
from inference_energy.tables import KEY, above_zero, conform
from inference_energy.tables.spread import BOUNDARIES

GROSS, NET, MACHINE = "taking_part_gross", "taking_part_net", "machine_gross"

_ENERGY = "energy_j_per_output_token"
_KEY = [column.name for column in KEY]


@dataclass(frozen=True)
class Boundaries:
    """Runs under each accounting.

    Attributes
    ----------
    rows : DataFrame
        One row a run and accounting.
    """

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``boundaries``."""
        return conform(self.rows, BOUNDARIES)


def boundaries(runs: pd.DataFrame, qualifications: pd.DataFrame) -> Boundaries:
    r"""Count the energy of every run in three ways; tokens are those generated in all of them.

    ``taking_part_gross``
        :math:`E / T`, the GPUs that take part, with what they would have drawn idle. The default.
    ``taking_part_net``
        :math:`(E - P_0 t) / T` with the idle power :math:`P_0` of the same run before loading.
    ``machine_gross``
        :math:`(E + E_r) / T`, with :math:`E_r` of all other GPUs of the machine as they are when idle:
        metered where the run metered all of them, else :math:`t \sum_g P_g` with the idle power
        :math:`P_g` that qualification found on each in the same sitting. Whatever other
        runs did there meanwhile is not this run's.

    Which settings are a *deployment*: :func:`inference_energy.models.deployments.is_deployment`.

    Parameters
    ----------
    runs, qualifications : DataFrame
        The tables of these names; runs without energy are left out.

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0.
    """
    known = runs[runs[_ENERGY].notna()]
    if known.empty:
        raise AnalysisError(
            "table runs", f"none of {len(runs)} runs has {_ENERGY}", "at least one measured run", "See column status"
        )
    above_zero(known, _ENERGY, "table runs")
    common = known[[*_KEY, "model", "sitting"]].assign(deployment=is_deployment(known))
    gross = known[_ENERGY].astype(float)
    nothing = pd.Series(pd.NA, index=known.index, dtype="string")
    rows = [
        common.assign(accounting=GROSS, n_idle_gpus=0, basis="metered", reason=nothing, **{_ENERGY: gross}),
        _net(common, known),
        _machine(common, known, qualifications),
    ]
    every = pd.concat([part.assign(over_default_ratio=part[_ENERGY] / gross) for part in rows])
    return Boundaries(every[BOUNDARIES.names])


def _net(common: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Net energies; one that is not above 0 says that idle power was read too high."""
    net = known["energy_net_j_per_output_token"].astype(float)
    reason = pd.Series(pd.NA, index=known.index, dtype="string")
    reason[net.isna()] = "idle power is not known"
    reason[net <= 0] = "idle power before loading times the time exceeds the energy: the GPU had not rested"
    return common.assign(accounting=NET, n_idle_gpus=0, basis="metered", reason=reason, **{_ENERGY: net.where(net > 0)})


def _machine(common: pd.DataFrame, known: pd.DataFrame, qualifications: pd.DataFrame) -> pd.DataFrame:
    """Energies with the idle rest of the machine."""
    visible, working = known["n_visible_gpus"].astype(float), known["n_gpus"].astype(float)
    others = (visible - working).clip(lower=0)
    measured = known["energy_idle_devices_j"].astype(float)
    metered = (others == 0) | (measured.notna() & (known["n_metered_gpus"].astype(float) >= visible))
    idle_w = qualifications.groupby(["sitting", "gpu_uuid_hash"])["idle_power_w"].mean().dropna()
    powers = [
        _others_w(idle_w, sitting, gpus)
        for sitting, gpus in zip(known["sitting"], known["gpu_uuid_hash"].fillna(""), strict=True)
    ]
    n_qualified = pd.Series([len(each) for each in powers], index=known.index, dtype=float)
    estimated = pd.Series([sum(each) for each in powers], index=known.index, dtype=float) * known["measured_s"]
    rest = measured.where(others > 0, 0.0).where(metered, estimated.where(n_qualified == others))
    reason = pd.Series(pd.NA, index=known.index, dtype="string")
    few = rest.isna() & others.notna()
    reason[few] = [
        f"{qualified:.0f} of the {other:.0f} other GPUs have a qualified idle power in this sitting"
        for qualified, other in zip(n_qualified[few], others[few], strict=True)
    ]
    reason[others.isna()] = "the record does not say how many GPUs the machine has"
    energy = known[_ENERGY].astype(float) + rest / known["n_output_tokens_measured"].astype(float).where(others > 0, 1)
    reason[energy.isna() & reason.isna()] = "the tokens measured are not known"
    basis = pd.Series(np.where(metered, "metered", "estimated"), index=known.index, dtype="string")
    return common.assign(
        accounting=MACHINE,
        n_idle_gpus=others.astype("Int64"),
        basis=basis.where(energy.notna()),
        reason=reason,
        **{_ENERGY: energy},
    )


def _others_w(idle_w: pd.Series, sitting: str, gpus: str) -> list[float]:
    """Idle powers of the sitting's qualified GPUs that take no part in a run on `gpus`."""
    if sitting not in idle_w.index.get_level_values(0):
        return []
    of_sitting = idle_w.loc[sitting]
    return [float(power) for gpu, power in of_sitting.items() if gpu not in gpus.split("+")]
