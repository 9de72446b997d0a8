"""``dimml compare``: every method of a comparison, trained once where methods share a training, scored on the same
corrupted clips, one small JSON per method and repeat, and the tables and plots made of them."""
