"""Tables on checks of published and own records."""

from __future__ import annotations

from inference_energy.tables.columns import Table

TABLES: tuple[Table, ...] = ()
