"""``dimml demo``: serve the demo bundle, predict its sample clips, show the answers."""
