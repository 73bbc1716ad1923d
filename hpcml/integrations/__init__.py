"""Other tools: what they have left comes in, and what hpcml remembers is copied out."""
