"""Training: settings, network, training loop, optimizers, plan and distribution."""
