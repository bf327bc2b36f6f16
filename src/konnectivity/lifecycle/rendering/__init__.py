"""From a specification to objects, charts and files. Pure."""
