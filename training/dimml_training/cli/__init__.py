"""The commands of `dimml[train]`, one file each."""
