"""Looking at a finished map in a browser: where tiles come from, the page, a server, a folder."""
