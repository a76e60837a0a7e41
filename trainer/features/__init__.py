"""What a frozen pretrained network tells of pictures (`extract`), and what a linear head makes of it (`head`)."""
