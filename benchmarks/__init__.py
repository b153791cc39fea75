"""What paredown is held against; not in the wheel."""
