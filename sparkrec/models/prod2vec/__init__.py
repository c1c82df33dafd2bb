"""prod2vec and Meta-prod2vec: items' vectors from what is taken together."""
