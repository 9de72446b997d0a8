"""``dimml triton``: a real Triton server, installed by pip into an environment of its own and supervised.

``host``: whether this machine can run it; ``installation``: its installation, done once; ``run_folder``: other files of
one run; ``shared_memory``: leftovers of a run in /dev/shm; ``process``: the server process; ``failure``: why it did not
start; ``watchdog``: reloads models whose process died; ``running``: all of it together.
"""
