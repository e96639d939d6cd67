"""How bytes become events: pure decoders with feed and flush."""
