"""What every room stands on: errors, config, registry, engine, files, progress, optional imports."""
