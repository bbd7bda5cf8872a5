"""The web console: pages for people, made of what the API answers to the key they signed in with."""
