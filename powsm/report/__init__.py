"""RESULTS.md, the report page, comparisons and ablations."""
