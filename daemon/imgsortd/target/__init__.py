"""What a person does in target, or asks for."""
