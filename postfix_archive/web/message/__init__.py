"""The page of one message: header, text, parts, envelope, proof."""
