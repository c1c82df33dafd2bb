"""ALS with weighted-λ regularisation, by Spark MLlib."""
