"""Features of a frozen pretrained network, and what is fitted on them: linear probe, learning curve, OOD score."""
