"""What containers and codecs say of one stream beside its packets' data: clocks, splices, orientation, its end."""
