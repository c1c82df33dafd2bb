"""What is popular: the baseline, and what fills short lists up."""
