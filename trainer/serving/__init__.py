"""What serving needs and training shares: never imports TensorFlow (unless it is asked for), wandb or typer."""
