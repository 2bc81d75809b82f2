"""Names of what is said of arriving requests, for the analysis and for pages."""

from __future__ import annotations

import pandas as pd

OVER_BURST = "over burst"
OVER_FIXED = "over fixed gaps"
NO_LIMIT = "over no cache limit"
SPREAD = "highest over lowest"
OVER_ONE_BY_ONE = "over one by one"
ONE_BY_ONE = "transformers one by one"

#: Patterns in words, in the order of pages.
PATTERNS = {
    "burst": "all at once",
    "fixed": "fixed gaps",
    "uniform": "uniform gaps",
    "poisson": "Poisson",
    "gamma": "gamma gaps",
}

#: Figures to reach for the client (benchmarks/README.md): median lateness, and share of a core for 100 requests/s.
LATE_AIM_S, CORE_AIM_FRACTION = 0.001, 0.01


def arrival_words(row: pd.Series) -> str:
    """``Poisson, 16 requests/s``: how requests arrive, and the limit of the cache where there is one."""
    parts = [PATTERNS.get(str(row["arrival"]), str(row["arrival"]))]
    if pd.notna(row["arrival_cv"]):
        parts[0] += f" (CV {row['arrival_cv']:g})"
    if pd.notna(row["arrival_requests_per_s"]):
        parts.append(f"{row['arrival_requests_per_s']:g} requests/s")
    if pd.notna(row["kv_cache_tokens"]):
        parts.append(f"KV cache of {row['kv_cache_tokens']:,} tokens")
    return ", ".join(parts)
