"""From joules to kWh, CO₂e, euros, appliances and households: least, median and most costly setting."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import ESTIMATES, Evidence, Fact
from inference_energy.policy.numbers import software
from inference_energy.policy.spread import ENERGY, deployment_points
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    fold,
    known,
    level,
    not_measured,
    number,
    percent,
    plain,
    quantity,
    span,
    table,
)
from inference_energy.units import kwh_from_joules

MILLION = 1_000_000
DAYS_PER_YEAR = 365
PER_MILLION = "per_million_output_tokens"
WHICH = {"least": "least costly", "median": "median", "most": "most costly"}

# ASSUME: a site spends its power usage effectiveness times the energy of the measured devices. Processors, memory
# and network of the same machine are then part of the overhead, though a PUE counts them as computers.

NO_SETTING = "energy per output token of any deployment"


def million_tokens(evidence: Evidence) -> pd.DataFrame:
    """A million output tokens in the least, the median and the most costly setting of each model.

    Returns
    -------
    DataFrame
        Columns of ``cost_range`` and, each with its interval's ends,
        ``energy_kwh_per_million_output_tokens`` (devices that take part),
        ``site_energy_kwh_per_million_output_tokens`` (times the PUE),
        ``carbon_g_per_million_output_tokens`` and ``price_eur_per_million_output_tokens`` (of the latter).
        Least energy first.
    """
    made, assumed = evidence.cost_range.copy(), evidence.assumptions
    for end in ("", "_low", "_high"):
        energy_kwh = kwh_from_joules(1.0) * MILLION * made[f"{ENERGY}{end}"]
        site_kwh = energy_kwh * assumed.pue.value
        made[f"energy_kwh_{PER_MILLION}{end}"] = energy_kwh
        made[f"site_energy_kwh_{PER_MILLION}{end}"] = site_kwh
        made[f"carbon_g_{PER_MILLION}{end}"] = site_kwh * assumed.grid.value
        made[f"price_eur_{PER_MILLION}{end}"] = site_kwh * assumed.price.value
    return made.sort_values(ENERGY).reset_index(drop=True)


def translation(evidence: Evidence) -> Finding:
    """A million output tokens in kWh, CO₂e and euros, least and most costly setting."""
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty:
        return not_measured(NO_SETTING)
    least, most = made.iloc[0], made.iloc[-1]
    caveat = f" ({evidence.method_words})" if set(evidence.methods) & ESTIMATES else ""
    return Finding(
        f"A million output tokens took {_kwh(least)} ({setting_words(least)}) to {_kwh(most)}"
        f" ({setting_words(most)}) on the measured devices{caveat}.",
        f"A million tokens are about {number(MILLION / assumed.n_response_tokens, 2)} answers of"
        f" {assumed.n_response_tokens} tokens. The site uses {plain(assumed.pue.value)} times the energy of the"
        f" devices (PUE “{assumed.pue.words}”), its electricity causes {plain(assumed.grid.value)} g CO₂e/kWh (grid"
        f" “{assumed.grid.words}”, {assumed.grid.year}) and costs {plain(assumed.price.value)} €/kWh (price"
        f" “{assumed.price.words}”, {assumed.price.year}); these are taken as exact."
        f" All of these deployments run in {software(evidence)}.{_brackets(evidence)}",
    )


def translation_table(evidence: Evidence) -> Prose:
    """Least, median and most costly setting of every model, translated."""
    made = million_tokens(evidence)
    if made.empty:
        return Prose(not_measured(NO_SETTING).title)
    rows = [
        {
            "model": row["model"],
            "setting": f"{WHICH[str(row['which'])]}: {levels_words(row)}",
            "kWh, devices": _ends(row, "energy_kwh"),
            "kWh, site": _ends(row, "site_energy_kwh"),
            "g CO₂e": _ends(row, "carbon_g"),
            "€": _ends(row, "price_eur"),
        }
        for _, row in made.sort_values(["model", ENERGY]).iterrows()
    ]
    return Prose(f"Per million output tokens:\n\n{table(pd.DataFrame(rows))}")


def main_model(evidence: Evidence) -> pd.DataFrame:
    """The three rows of the model with most settings; the last by name among equals."""
    made = million_tokens(evidence)
    ranked = made.sort_values(["n_settings", "model"])
    return made[made["model"] == ranked["model"].iloc[-1]] if len(made) else made


def regions(evidence: Evidence) -> pd.DataFrame:
    """Carbon of one response in the three settings of :func:`main_model`, by hosting region.

    Returns
    -------
    DataFrame
        Columns region, which and ``carbon_g`` with ``_low`` and ``_high``: at the site, PUE included.
    """
    rows = [
        {
            "region": grid.words,
            "which": row["which"],
            **{
                f"carbon_g{end}": response_j(evidence, row, end) * kwh_from_joules(1.0) * grid.value
                for end in ("", "_low", "_high")
            },
        }
        for grid in sorted(evidence.assumptions.grids, key=lambda fact: fact.value)
        for _, row in main_model(evidence).iterrows()
    ]
    return pd.DataFrame(rows, columns=["region", "which", "carbon_g", "carbon_g_low", "carbon_g_high"])


def carbon(evidence: Evidence) -> Finding:
    """Whether the place or the setting decides about carbon."""
    chosen, assumed = main_model(evidence), evidence.assumptions
    if chosen.empty:
        return not_measured(NO_SETTING)
    grids = sorted(assumed.grids, key=lambda fact: fact.value)
    clean, dirty = grids[0], grids[-1]
    by_place = dirty.value / clean.value
    by_setting = float(chosen[ENERGY].max() / chosen[ENERGY].min())
    more = "as much as" if 0.8 < by_setting / by_place < 1.25 else "more than" if by_setting > by_place else "less than"
    pues = sorted((fact for fact in assumed.pues if fact.value > 1), key=lambda fact: fact.value)
    building = (
        f" The building adds to it: from PUE {plain(pues[0].value)} (“{pues[0].words}”) to {plain(pues[-1].value)}"
        f" (“{pues[-1].words}”) everything rises by {percent(pues[-1].value / pues[0].value - 1)}."
        if len(pues) > 1
        else ""
    )
    return Finding(
        f"For {chosen.iloc[0]['model']}, the choice of setting moves the carbon of an answer {fold(by_setting)},"
        f" {more} the hosting region does ({fold(by_place)}, {clean.words} to {dirty.words}).",
        f"Regions differ in how their electricity is made.{building} Setting, region and building multiply.",
    )


def grids_table(evidence: Evidence) -> Prose:
    """The three settings of :func:`main_model` on every grid of the context."""
    chosen, assumed = main_model(evidence), evidence.assumptions
    if chosen.empty:
        return Prose(not_measured(NO_SETTING).title)
    pues = sorted(assumed.pues, key=lambda fact: fact.value)
    rows = []
    for grid in sorted(assumed.grids, key=lambda fact: fact.value):
        cells = {"region": f"{grid.words} ({grid.year})", "g CO₂e/kWh": plain(grid.value)}
        for _, row in chosen.sort_values(ENERGY).iterrows():
            cells[f"{WHICH[str(row['which'])]}, g CO₂e"] = _scaled(row, f"site_energy_kwh_{PER_MILLION}", grid.value)
        median = chosen[chosen["which"] == "median"].iloc[0]
        for pue in pues:
            if pue != assumed.pue:
                in_building = float(median[f"energy_kwh_{PER_MILLION}"]) * pue.value * grid.value
                cells[f"median at PUE {plain(pue.value)}"] = number(in_building)
        rows.append(cells)
    return Prose(
        f"{chosen.iloc[0]['model']}, per million output tokens, at PUE {plain(assumed.pue.value)} unless another is"
        f" named:\n\n{table(pd.DataFrame(rows))}\n\nThe grids' values are yearly means; hours differ, and a contract"
        " for green electricity does not change the grid."
    )


def appliances(evidence: Evidence) -> Finding:
    """One response beside household appliances."""
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty or not assumed.appliances:
        return not_measured(NO_SETTING)
    least, most = (response_j(evidence, row) for row in (made.iloc[0], made.iloc[-1]))
    details = [
        f"{fact.words} ({quantity(fact.value, 'J')}): {number(fact.value / most, 2)} to"
        f" {number(fact.value / least, 2)} responses"
        for fact in sorted(assumed.appliances, key=lambda f: f.value)
    ]
    return Finding(
        f"One response of {assumed.n_response_tokens} tokens took {span(least, most, 'J')} at the site"
        f" (PUE {plain(assumed.pue.value)}), depending on the setting.",
        f"As much energy as: {bullets(details)}",
    )


def response(evidence: Evidence) -> pd.DataFrame:
    """Energy of one response at the site, J, in every run, in the three settings of each model, beside appliances.

    Returns
    -------
    DataFrame
        Columns name, kind (run, response or appliance), ``energy_j`` with ``_low`` and ``_high``.
    """
    names = ["name", "kind", "energy_j", "energy_j_low", "energy_j_high"]
    per_token = evidence.assumptions.n_response_tokens * evidence.assumptions.pue.value
    rows = [
        {"name": model, "kind": "run", "energy_j": energy * per_token}
        for model, energy in deployment_points(evidence)[["model", ENERGY]].itertuples(index=False)
    ]
    for _, row in million_tokens(evidence).iterrows():
        ends = {f"energy_j{end}": response_j(evidence, row, end) for end in ("", "_low", "_high")}
        rows.append({"name": f"{row['model']}, {WHICH[str(row['which'])]}", "kind": "response", **ends})
    rows += [{"name": f.words, "kind": "appliance", "energy_j": f.value} for f in evidence.assumptions.appliances]
    return pd.DataFrame(rows, columns=names)


def printed_appliances(evidence: Evidence) -> Finding:
    """Which rows of a published comparison do not follow from its own numbers."""
    rows = evidence.published_appliances
    if rows.empty:
        return not_measured("the published comparison with appliances")
    apart, counts = rows[~rows["energy_follows"]], rows[~rows["responses_follow"]]
    details = [
        f"{row['appliance']}, {row['usage']}: printed {plain(row['printed_energy_kwh'])} kWh, but its justification"
        f" (“{row['justification']}”) gives {plain(row['derived_energy_kwh'])} kWh"
        for _, row in apart.iterrows()
    ]
    details += [
        f"{row['appliance']}: printed {plain(row['n_printed_least_responses'])} responses of the least and"
        f" {plain(row['n_printed_most_responses'])} of the most efficient setting; at the energy per response that the"
        f" other rows imply it would be {number(row['n_derived_least_responses'], 2)} and"
        f" {number(row['n_derived_most_responses'], 3)}"
        for _, row in counts.iterrows()
    ]
    return Finding(
        f"Of the {len(rows)} appliances in a published table (Baker), {len(apart)} printed energies do not follow from"
        f" the table's own numbers, and {counted(len(counts), 'row')} of responses"
        f" {'does' if len(counts) == 1 else 'do'} not.",
        f"The comparison below uses what follows.{bullets(details)}" if details else "",
    )


def printed_table(evidence: Evidence) -> Prose:
    """The published energies as printed, as derived, and the verdict."""
    rows = evidence.published_appliances
    if rows.empty:
        return Prose(not_measured("the published comparison with appliances").title)
    cells = [
        {
            "appliance": f"{row['appliance']}, {row['usage']}",
            "printed, kWh": plain(row["printed_energy_kwh"]),
            "justification, as printed": row["justification"],
            "follows, kWh": plain(row["derived_energy_kwh"]),
            "agrees": "yes" if row["energy_follows"] else "**no**",
            "responses printed": _two(row, "printed", plain),
            "responses that follow": _two(row, "derived", lambda value: number(value, 3)),
            "agree": "yes" if row["responses_follow"] else "**no**",
        }
        for _, row in rows.iterrows()
    ]
    return table(pd.DataFrame(cells))


def scaled_up(evidence: Evidence) -> Finding:
    """A year of requests in households' electricity."""
    made, assumed = main_model(evidence), evidence.assumptions
    if made.empty or not assumed.requests:
        return not_measured(NO_SETTING)
    smallest = min(assumed.requests, key=lambda fact: fact.value)
    least, most = made.iloc[0], made.iloc[-1]
    low, high = (yearly_kwh(evidence, row, smallest) / assumed.household.value for row in (least, most))
    return Finding(
        f"A million requests a day take the electricity of {number(low * MILLION / smallest.value, 2)} to"
        f" {number(high * MILLION / smallest.value, 2)} households, depending on the setting alone ({least['model']}).",
        f"Each request is one answer of {assumed.n_response_tokens} tokens, at PUE {plain(assumed.pue.value)}; a"
        f" household ({assumed.household.words}) uses {plain(assumed.household.value)} kWh a year. This scales what was"
        " measured on small models; it is no estimate of any service, which uses other models, lengths and machines.",
    )


def scaled_table(evidence: Evidence) -> Prose:
    """kWh, households and CO₂e of a year, for every size of service, three settings of each model."""
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty or not assumed.requests:
        return Prose(not_measured(NO_SETTING).title)
    rows = []
    for service in sorted(assumed.requests, key=lambda fact: fact.value):
        for place, (_, row) in enumerate(made.sort_values(["model", ENERGY]).iterrows()):
            ends = [yearly_kwh(evidence, row, service, end) for end in ("", "_low", "_high")]
            tonnes = [kwh * assumed.grid.value / 1e6 for kwh in ends]
            rows.append(
                {
                    "service": "" if place else f"{service.words}: {plain(service.value)} requests a day",
                    "setting": f"{row['model']}, {WHICH[str(row['which'])]}",
                    "MWh a year": _triple([kwh / 1000 for kwh in ends]),
                    f"households ({assumed.household.words})": _triple([kwh / assumed.household.value for kwh in ends]),
                    f"t CO₂e ({assumed.grid.words})": _triple(tonnes),
                }
            )
    return Prose(f"{table(pd.DataFrame(rows))}\n\n{_brackets(evidence).strip()}")


def yearly_kwh(evidence: Evidence, row: pd.Series, service: Fact, end: str = "") -> float:
    """Energy of a year of `service` at the site, kWh."""
    return response_j(evidence, row, end) * kwh_from_joules(1.0) * service.value * DAYS_PER_YEAR


def response_j(evidence: Evidence, row: pd.Series, end: str = "") -> float:
    """Energy of one response at the site, J, in the setting of `row` of :func:`million_tokens`."""
    return float(row[f"{ENERGY}{end}"]) * evidence.assumptions.pue.value * evidence.assumptions.n_response_tokens


def setting_words(row: pd.Series) -> str:
    """Model and levels of a setting in words."""
    return f"{row['model']}, {levels_words(row)}"


def levels_words(row: pd.Series) -> str:
    """Levels of a setting in words; what is usual is left out."""
    parts = [str(row["precision"]), f"batch {row['batch_size']}"]
    if known(row["n_gpus"]) and row["n_gpus"] > 1:
        parts.append(f"{row['n_gpus']} GPUs ({str(row['parallelism']).replace('_', ', ')})")
    if pd.notna(row["traffic"]) and row["traffic"] != "none":
        parts.append(f"{row['traffic']} waiting")
    return ", ".join(parts)


def sentence(evidence: Evidence) -> str:
    """Kilowatt-hours, carbon and money of a million tokens, in one sentence."""
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty:
        return not_measured(NO_SETTING).title
    least, most = (
        f"{_ends(row, 'site_energy_kwh')} kWh, {_ends(row, 'carbon_g')} g CO₂e and {_ends(row, 'price_eur')} €"
        for row in (made.iloc[0], made.iloc[-1])
    )
    several = made[f"{ENERGY}_low"].notna().any()
    brackets = f"in brackets {level(assumed.confidence)} intervals" if several else "no setting repeated, no intervals"
    caveat = f" ({evidence.method_words})" if set(evidence.methods) & ESTIMATES else ""
    return (
        f"A million output tokens cost {least} in the least costly setting, {most} in the most costly one"
        f"{caveat} (PUE {plain(assumed.pue.value)}, grid “{assumed.grid.words}”, price “{assumed.price.words}”;"
        f" {brackets})."
    )


def _two(row: pd.Series, which: str, words: object) -> str:
    return f"{words(row[f'n_{which}_least_responses'])} / {words(row[f'n_{which}_most_responses'])}"  # type: ignore[operator]


def _kwh(row: pd.Series) -> str:
    return quantity(row[f"energy_kwh_{PER_MILLION}"], "kWh")


def _ends(row: pd.Series, what: str) -> str:
    return _scaled(row, f"{what}_{PER_MILLION}", 1.0)


def _scaled(row: pd.Series, name: str, factor: float) -> str:
    return _triple([float(row[f"{name}{end}"]) * factor for end in ("", "_low", "_high")])


def _triple(values: list[float]) -> str:
    """``12 (11 to 13)``; without the bracket where there is no interval."""
    value, low, high = values
    return f"{number(value)} ({span(low, high, '')})" if known(low) and known(high) else number(value)


def _brackets(evidence: Evidence) -> str:
    """What the brackets hold; or, without any, why there are none."""
    rows = evidence.cost_range
    if rows[f"{ENERGY}_low"].notna().any():
        row = rows.iloc[0]
        return (
            f" In brackets: {level(evidence.assumptions.confidence)} intervals of the measurement, from how runs of"
            f" one setting differ ({percent(row['repeat_cv'])}; {counted(int(row['n_repeats']), 'repetition')} of any"
            " setting)."
        )
    return " No setting was measured twice: no intervals."
