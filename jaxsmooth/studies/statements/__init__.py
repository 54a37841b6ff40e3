"""What a study can say: of the model, whether hypotheses hold; of other texts, with confidence."""
