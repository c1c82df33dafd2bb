"""Association rules, and the frequent itemsets that they are made from."""
