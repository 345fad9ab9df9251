"""The web page: archived mail in a browser, for those whom archive-web.cf lets in."""
