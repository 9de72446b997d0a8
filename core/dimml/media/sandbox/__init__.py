"""What a decode worker takes away from itself before it reads a file: seccomp and Landlock."""
