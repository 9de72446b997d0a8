"""What ``scripts/real_clients.py`` runs: clients, the checks they all go through, and what stands between."""
