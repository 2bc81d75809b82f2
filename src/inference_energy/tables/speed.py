"""Tables on throughput and utilisation."""

from __future__ import annotations

from inference_energy.tables.columns import Table

TABLES: tuple[Table, ...] = ()
