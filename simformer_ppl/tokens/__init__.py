"""Values as the network sees them: unconstrained, standardised channels, and the state of every token."""
