"""Products of a scored table: metrics, an HTML report, a timeline plot."""
