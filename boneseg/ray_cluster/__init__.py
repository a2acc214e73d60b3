"""What training, sweeps and preparing share about Ray: a cluster, its resources, and lists of jobs on it."""
