"""The commands of `dimml[serve]`."""
