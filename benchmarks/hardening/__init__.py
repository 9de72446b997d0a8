"""What the server must withstand, each as a script with a table; run through ``benchmarks/harden.py``."""
