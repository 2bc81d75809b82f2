"""The ledger of claims: what the studies say, what was found, and how the two compare."""

from __future__ import annotations

import html

import pandas as pd

from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import Finding, Prose, bullets, counted, known, listed, not_measured, number, plain
from inference_energy.verdicts import CONTRADICTED, NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, SAME_DIRECTION, VERDICTS

#: Studies in words, in the order of the page.
STUDIES = {"baker": "Baker", "wetzel": "Wetzel", "delavande": "Delavande", "caravaca": "Caravaca"}
EFFECT = "effect_over_published_ratio"

_MEANING = {
    REPRODUCED: "our estimate meets the claim, and its interval is narrow enough to mean it",
    SAME_DIRECTION: "our interval lies on the claim's side of no effect, but does not meet the claim; or there is no"
    " interval, and the estimate points the claim's way",
    NOT_REPRODUCED: "neither, also where our interval is too wide to tell",
    CONTRADICTED: "our interval lies wholly on the other side",
    NOT_TESTABLE: "there is no estimate, and the reason is given",
}
_HEADS = ("Study", "Claim", "Published", "Here", "Verdict", "Runs", "Shown in")

#: Shows what a reader asks for; without it the table is whole, and the fields stay hidden.
_SCRIPT = """
(() => {
  const ledger = document.getElementById("ledger"), form = ledger.querySelector("form");
  const claims = [...ledger.querySelectorAll("tbody")], status = form.querySelector("output");
  const show = () => {
    const words = form.words.value.trim().toLowerCase();
    let n = 0;
    for (const claim of claims) {
      const fits = (!form.study.value || claim.dataset.study === form.study.value)
        && (!form.verdict.value || claim.dataset.verdict === form.verdict.value)
        && claim.textContent.toLowerCase().includes(words);
      claim.hidden = !fits;
      n += fits;
    }
    status.textContent = `${n} of ${claims.length} claims`;
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
"""


class Markup(str):
    """HTML that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return str(self)


def claims_counts(evidence: Evidence) -> pd.DataFrame:
    """Claims of every study by verdict: columns study, verdict, n_claims."""
    main = evidence.claims[evidence.claims["main"].astype(bool)]
    found = [
        {"study": study, "verdict": verdict, "n_claims": int((of_study["verdict"] == verdict).sum())}
        for study, of_study in ((study, main[main["study"] == study]) for study in STUDIES)
        for verdict in VERDICTS
    ]
    return pd.DataFrame(found)


def claims_verdicts(evidence: Evidence) -> Finding:
    """How many claims were tested, and what became of them."""
    counts = claims_counts(evidence)
    total = int(counts["n_claims"].sum())
    tested = counts[counts["verdict"] != NOT_TESTABLE]
    if not total:
        return not_measured("the studies' claims beside our estimates")
    details = [f"{STUDIES[str(study)]}: {_tally(rows)}" for study, rows in counts.groupby("study", sort=False)]
    if not tested["n_claims"].sum():
        return Finding(f"None of {total} claims can be tested with what this campaign measured.", bullets(details))
    return Finding(
        f"{int(tested['n_claims'].sum())} of {total} claims can be tested here: {_tally(tested)}.", bullets(details)
    )


def _tally(counts: pd.DataFrame) -> str:
    """``3 reproduced, 1 contradicted``."""
    sums = counts.groupby("verdict", sort=False)["n_claims"].sum()
    return ", ".join(f"{n} {verdict}" for verdict, n in sums.items() if n)


def claims_rule() -> Prose:
    """What each verdict means."""
    points = [f"**{verdict}**: {words}" for verdict, words in _MEANING.items()]
    return Prose(
        "The rules are `docs/claims.md` (in words) and `resources/claim_rules.csv` (for each claim). They were written"
        " before any estimate was looked at; later changes are listed there with reasons and consequences."
        f" {bullets(points)}\n\nThe studies used other GPUs, models, software and prompts. *Not"
        " reproduced* means that a number did not come out here, not that it was wrong there."
    )


def claims_compared_rows(evidence: Evidence) -> pd.DataFrame:
    """Readings with a published value and an estimate, main ones first within a claim."""
    rows = evidence.claims
    return rows[rows[EFFECT].notna() & (rows["verdict"] != NOT_TESTABLE)].reset_index(drop=True)


def claims_compared(evidence: Evidence) -> Finding:
    """Our effects beside the published ones."""
    rows = claims_compared_rows(evidence)
    main = rows[rows["main"].astype(bool)]
    if rows.empty:
        return not_measured("any effect that a study gives as a number")
    same, other = main["verdict"] == REPRODUCED, main[EFFECT] < 0
    sizes = {
        "as published": int(same.sum()),
        "larger": int((~same & (main[EFFECT] > 1)).sum()),
        "smaller": int((~same & ~other & (main[EFFECT] <= 1)).sum()),
        "the other way round": int((~same & other).sum()),
    }
    parts = listed([f"{n} came out {how}" for how, n in sizes.items() if n])
    side = f"Of {counted(len(main), 'effect')} that studies give as numbers, {parts}"
    if main.empty:
        side = f"{counted(len(rows), 'effect')} can be compared, none in the first reading of its claim"
    return Finding(
        f"{side}.",
        "Each effect is measured from where there is none (a ratio of one, a change of zero), on a logarithmic scale"
        " for ratios, and divided by the published one: one is as published, zero is no effect, below zero the other"
        " way round. What counts as published, and when an interval is too wide, is in the rules.",
    )


def claims_ledger(evidence: Evidence) -> Markup:
    """Every claim with its readings: a table that can be searched and filtered, whole without scripts."""
    rows = evidence.claims
    if rows.empty:
        return Markup(f"<p>{html.escape(not_measured('the claims of other studies').title)}</p>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    groups = [readings for _, readings in rows.groupby(["study", "claim_id"], sort=False)]
    groups.sort(key=lambda readings: readings.iloc[0]["verdict"] == NOT_TESTABLE)  # stable: else as the studies have it
    bodies = [_claim(readings) for readings in groups]
    return Markup(
        f'<div id="ledger" class="ledger">{_form()}<table><caption>Claims of four studies beside our estimates; in'
        " brackets intervals. Claims that could be tested come first. Indented: other readings of the same"
        " claim.</caption>"
        f"<thead><tr>{heads}</tr></thead>\n{''.join(bodies)}</table><script>{_SCRIPT}</script></div>"
    )


def _form() -> str:
    studies = "".join(f'<option value="{key}">{name}</option>' for key, name in STUDIES.items())
    verdicts = "".join(f"<option>{verdict}</option>" for verdict in VERDICTS)
    return (
        '<form hidden><label>Search <input type="search" name="words"></label>'
        f' <label>Study <select name="study"><option value="">all</option>{studies}</select></label>'
        f' <label>Verdict <select name="verdict"><option value="">all</option>{verdicts}</select></label>'
        " <output></output></form>"
    )


def _claim(readings: pd.DataFrame) -> str:
    """One claim as a group of rows."""
    first = readings.iloc[0]
    rows = "".join(_reading(row, place == 0) for place, (_, row) in enumerate(readings.iterrows()))
    name = html.escape(f"{first['study']}-{first['claim_id']}")
    return f'<tbody id="{name}" data-study="{first["study"]}" data-verdict="{first["verdict"]}">{rows}</tbody>\n'


def _reading(row: pd.Series, main: bool) -> str:
    said = (
        f"{html.escape(row['statement'])} <small>{html.escape(row['claim_id'])}; {html.escape(row['source'])}</small>"
    )
    what = "" if row["reading"] == "as stated" else f"<em>{html.escape(row['reading'])}</em>"
    claim = f"{said} {what}" if main else what or "<em>as stated</em>"
    verdict = f'<strong class="{row["verdict"].replace(" ", "-")}">{row["verdict"]}</strong>'
    note = f" <small>{html.escape(row['note'])}</small>" if isinstance(row["note"], str) else ""
    cells = (
        f'<th scope="row">{STUDIES.get(row["study"], row["study"]) if main else ""}</th>',
        *(f"<td>{cell}</td>" for cell in (claim, _published(row) if main else "", _ours(row), verdict + note)),
        f"<td>{_grounds(row)}</td><td>{_link(row)}</td>",
    )
    return f"<tr class={'first' if main else 'other'}>{''.join(cells)}</tr>"


def _published(row: pd.Series) -> str:
    if known(row["value"]):
        return _value(plain(row["value"]), row["unit"])
    low, high = row["value_low"], row["value_high"]
    if known(low) and known(high):
        return f"true: {plain(low)} to {plain(high)}"
    if known(low) or known(high):
        return f"true: at least {plain(low)}" if known(low) else f"true: at most {plain(high)}"
    return "true"


def _ours(row: pd.Series) -> str:
    said = [html.escape(row["quantity"])] if isinstance(row["quantity"], str) else []
    if known(row["n_estimates"]) and row["n_estimates"] > 1:
        said.append(f"the least favourable of {row['n_estimates']}")
    quantity = f"<small>{'; '.join(said)}</small>" if said else ""
    if not known(row["estimate"]):
        return quantity
    ends = f" [{_short(row['low'])} to {_short(row['high'])}]" if known(row["low"]) else ""
    return f"{_value(_short(row['estimate']), row['unit'])}{ends} {quantity}".strip()


def _grounds(row: pd.Series) -> str:
    if not known(row["n_runs"]) or not row["n_runs"]:
        return ""
    counts = f"{counted(int(row['n_runs']), 'run')} of {counted(int(row['n_settings']), 'setting')}"
    names = row["records"].split()
    shown = " ".join(html.escape(name) for name in names) if len(names) <= _NAMED else ""
    return f"<details><summary>{counts}</summary>{shown or 'their names are in the table claims'}</details>"


#: Runs whose names the page shows; more make it heavy.
_NAMED = 60


def _link(row: pd.Series) -> str:
    if not isinstance(row["page"], str):
        return ""
    anchor = f"#fig-{row['figure']}" if isinstance(row["figure"], str) else ""
    words = row["page"].partition("_")[2].replace("_", " ")
    return f'<a href="{row["page"]}.html{anchor}">{words}</a>'


def _short(value: float) -> str:
    """Three digits, whole numbers whole; very small ones with an exponent."""
    if value == round(value) and abs(value) < 1000:
        return plain(value)
    return number(value) if abs(value) >= 1e-4 else f"{value:.2e}"


def _value(value: str, unit: object) -> str:
    """A number in the unit of a claim: ``4.3×``, ``10.7 %``, ``1.44e-06 kWh/token``; ``true`` of a statement."""
    words = {"x": f"{value}×", "pct": f"{value} %", "bool": "true", "ratio": value, "p-value": f"p = {value}"}
    return words.get(unit, f"{value} {html.escape(unit)}") if isinstance(unit, str) else value
