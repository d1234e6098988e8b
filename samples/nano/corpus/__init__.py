"""The corpus of nano: a seeded generator of chats in and around the invented town of Saltmere."""
