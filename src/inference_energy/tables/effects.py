"""Tables on what each factor does, alone and with others."""

from __future__ import annotations

from inference_energy.tables.columns import Table

TABLES: tuple[Table, ...] = ()
