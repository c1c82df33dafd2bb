"""content2vec: items' vectors from their contents and prod2vec's."""
