"""Tables that list recordings, as training and scoring read them."""
