"""Training: a stream of simulated mini-tomograms, batches of windows out of them, the losses, the trainer."""
