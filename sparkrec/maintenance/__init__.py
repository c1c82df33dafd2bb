"""The care of the warehouse: small files, superseded files, declared checks, nights that are no longer kept."""
