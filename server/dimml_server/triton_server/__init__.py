"""``dimml triton``: a real Triton server, fetched from pip into an environment of its own and looked after.

``host``: whether this machine can run it; ``installation``: fetched once; ``run_folder``: what one run needs beside;
``shared_memory``: what a run leaves in /dev/shm; ``process``: the server process; ``failure``: why it did not start;
``watchdog``: models whose process died are loaded again; ``running``: all of it together.
"""
