"""Process 2, the collaborator: what passed the relay becomes rows, and the rows become a shared document."""
