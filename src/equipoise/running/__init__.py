"""Running one composed configuration: training, test, results, checkpoints, processes."""
