"""A first config for a clip table: its columns, media and splits, sizes that suit them, and the time it takes."""
