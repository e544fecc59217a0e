"""What is measured: one module per question, each with the goals it is judged by."""
