"""The Lightning modules and trainer that every training shares."""
