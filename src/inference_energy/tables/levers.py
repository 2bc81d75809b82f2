"""Tables on batch size, precision, decoding."""

from __future__ import annotations

from inference_energy.tables.columns import Table

TABLES: tuple[Table, ...] = ()
