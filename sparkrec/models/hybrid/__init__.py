"""The hybrid of the user models' candidates."""
