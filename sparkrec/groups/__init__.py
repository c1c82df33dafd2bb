"""Groups of users, and what each is like."""
