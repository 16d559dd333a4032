"""Parameters as one flat vector, and their way from the learner to whoever acts."""
