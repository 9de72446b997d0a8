"""``python -m dimml`` is the ``dimml`` command."""

from dimml.cli import run

if __name__ == "__main__":
    run()
