"""What lies in the walks' folders is tested in a copy of the house, where it has its place."""

collect_ignore = ["family", "backbone", "colour", "cutout", "format", "original"]
