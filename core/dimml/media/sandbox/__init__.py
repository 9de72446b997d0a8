"""Restrictions that a decode worker puts on itself before it reads a file: seccomp and Landlock."""
