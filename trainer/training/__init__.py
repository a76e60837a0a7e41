"""From a configuration to a published model: the loop, its run folder, the export."""
