"""What models see and do, as numbers (maps) and as figures."""
