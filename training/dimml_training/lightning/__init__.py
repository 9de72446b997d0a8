"""The Lightning module and trainer that every training shares."""
