"""The commands of `dimml[client]`."""
