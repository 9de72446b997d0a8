"""What containers and codecs say of a stream beside its packets' data: clocks, splices, turns, colour, its end."""
