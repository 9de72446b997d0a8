"""One prediction core that every transport calls: request, admission, service, response."""
