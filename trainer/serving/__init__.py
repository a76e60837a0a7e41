"""What the server needs: free of TensorFlow, wandb and typer."""
