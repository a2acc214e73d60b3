"""How the steps are wired; nothing else."""
