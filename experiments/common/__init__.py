"""What the experiments share: models, data, methods, training, rows, table and figure."""
