"""Tables on how far settings spread, and where the spread comes from."""

from __future__ import annotations

from inference_energy.tables.columns import Table

TABLES: tuple[Table, ...] = ()
