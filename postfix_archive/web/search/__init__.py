"""The page that finds mail: the query, the hits, facets, saved searches."""
