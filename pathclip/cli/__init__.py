"""One file per verb, each: parse, build the config, one library call, show."""
